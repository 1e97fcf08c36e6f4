"""Values of free queries against fixed limits, for those who want them. No guarantee goes with it.

How often a good candidate fails by it depends on how the value varies and how often one looks; a
number of times in a row makes a single bad scrape harmless, and that is all it does.
"""

from __future__ import annotations

import math

from mooring.core.judge.settings import Metric, Threshold
from mooring.core.judge.verdicts import Estimate, MetricJudgement, Verdict


def judge_threshold(
    metric: Metric, value: float | None, streak: int
) -> tuple[MetricJudgement, int]:
    """One tick of one value. ``streak``: how often in a row it was inside, negative when outside.

    A value that is missing or not finite is no data: it holds, and the streak stays as it was.
    """
    rule = metric.rule
    if not isinstance(rule, Threshold):
        raise TypeError(f"metric {metric.name} has no threshold")
    if value is None or not math.isfinite(value):
        reason = "the query gave no finite value"
        return MetricJudgement(metric.name, Verdict.NO_DATA, reason, guaranteed=False), streak
    below = rule.min is not None and value < rule.min
    above = rule.max is not None and value > rule.max
    limit = rule.min if below else rule.max
    inside = not (below or above)
    streak = max(streak, 0) + 1 if inside else min(streak, 0) - 1
    # It counts no further than it is asked for: it stays a short number.
    streak = max(-rule.consecutive, min(streak, rule.consecutive))
    shown = Estimate(value, value, value)
    if inside:
        reason = f"{value:.4g} is within its limits (no guarantee)"
        verdict = Verdict.PASS if streak >= rule.consecutive else Verdict.INCONCLUSIVE
    else:
        word = "below" if below else "above"
        times = f"{-streak} of {rule.consecutive} times in a row"
        reason = f"{value:.4g} is {word} {limit:g}, {times} (no guarantee)"
        verdict = Verdict.FAIL if -streak >= rule.consecutive else Verdict.INCONCLUSIVE
    found = MetricJudgement(metric.name, verdict, reason, guaranteed=False, estimate=shown)
    return found, streak
