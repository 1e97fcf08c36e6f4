"""The Envoy router of a ModelDeployment: what it reads, how it starts, the objects around it.

``envoy`` renders what changes with the traffic, ``bootstrap`` what a router pod starts with,
``objects`` the Kubernetes objects of both, and ``report`` reads what a router says it has taken.
"""
