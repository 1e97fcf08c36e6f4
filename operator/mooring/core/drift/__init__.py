"""Drift on binned counts: has the world moved away from what the model learnt?

Everything here works on counts per bin, so its cost grows with features × bins and never with
rows, and a window that is over needs no raw value to be kept. From the inside out:

- ``grid``, ``building``, ``reference``: where values are counted, and what was counted to begin
  with;
- ``coarse``: the bins that are tested, laid out as arrays of features × bins;
- ``distances``, ``shift``, ``ordered``, ``tails``, ``mmd``, ``dispersion``, ``multiplicity``: the
  statistics of one window against a reference;
- ``cusum``, ``course``, ``season``: windows in a row;
- ``health``, ``outputs``, ``performance``: broken data, silent failures, labels;
- ``settings``, ``state``, ``report``, ``episode``: one pure step per window.
"""
