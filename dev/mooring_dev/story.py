"""The story: the demo, and beside it a second model whose data is watched.

That data moves, a Job makes the model anew, and it is promoted (``story_retraining``). Everything
it shows is asked of the cluster and its Prometheus at that moment.
"""

from __future__ import annotations

from contextlib import ExitStack

import click

from mooring_dev import demo, images_background, steps, story_retraining
from mooring_dev.demo_setup import farewell, set_up
from mooring_dev.demo_timeline import Timeline
from mooring_dev.errors import DevError


@click.command()
@click.option("--name", default="default", show_default=True, help="The cluster to use or make.")
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR in the environment does too).")
def story(name: str, *, no_color: bool) -> None:
    """The demo's canaries, good and bad; then drift found, a model made anew, and promoted.

    The cluster stays, with everything in it; `make cluster-down` removes it. Exit codes: 0 it went
    as told, 1 it did not, with a message that says where.
    """
    if no_color:
        steps.no_colour()
    timeline = Timeline(colour=not no_color)
    told = set_up(timeline, name)
    with ExitStack() as running:
        image = images_background.loading(told.cluster.name, [story_retraining.IMAGE])
        trainer = running.enter_context(image)
        with timeline.chapter("A model whose data is watched"):
            asking, watched = story_retraining.watched_model(told, running)
        demo.chapters(told)
        with timeline.chapter("The data of the watched model moves"):
            story_retraining.data_moves(told, asking, watched)
        with timeline.chapter("A Job makes that model anew"):
            trainer.wait()
            story_retraining.job_trains(told)
        with timeline.chapter("What it made goes through the canary"):
            story_retraining.new_model(told)
    if asking.failed:
        raise DevError(f"{asking.failed} of {asking.sent} requests failed: {asking.failures[0]}")
    timeline.good(f"{asking.sent} requests for samples in all, none failed.")
    farewell(told)
