"""Verdicts: every comparison of a notebook in one sentence, and the takeaways that are made of all of them.

    measurements -> statistics -> estimate, interval --here--> verdict, sentence -> takeaways

A claim is a sentence that holds where a number is above zero: "Grad-ECLIP finds more than attention alone", and the
difference of the two. What was judged stays in the list, whatever came out; `Takeaways` renders all of it, first what
contradicts what is published, then answer by answer. Claims have different units (fractions, correlations, areas), so
within an answer they are ordered by the estimate over the width of its interval, which has none. Of "cannot tell",
those whose interval lies on one side of zero, but not beyond the margin, are listed apart: they tell the direction.

The rule is `statistics.verdict`: the 95 % interval of the number lies above the margin (for), below minus the margin
(against), between the two (equivalent), or none of these (cannot tell). Where it lies between, that is an equivalence
test, two one-sided tests (TOST) of 2.5 % each: Schuirmann, "A Comparison of the Two One-Sided Tests Procedure and the
Power Approach", Journal of Pharmacokinetics and Biopharmaceutics 1987. It means no more than its margin does, so a
margin needs a reason, from outside the data. Without a margin nothing is equivalent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradeclip_utils.checks import columns, number
from gradeclip_utils.errors import GradeclipError
from gradeclip_utils.measures.statistics import difference_interval, interval


def verdict(low: float, high: float, margin: float, more: str, less: str, same: str) -> str:
    """Return what follows from the interval of a difference and a margin, or "cannot tell"."""
    number("margin", margin, 0)
    if not low <= high:
        raise GradeclipError(f"an interval goes from low to high, got [{low!r}, {high!r}]")
    if low > margin:
        return more
    if high < -margin:
        return less
    return same if max(-low, high) < margin else "cannot tell"


_AGAINST, _SMALL = "against what is published", " but perhaps too small to matter"
_SAID = {
    "for": "yes", "against": "no, the opposite", "equivalent": "no difference that matters",
    f"against{_SMALL}": f"no, the opposite,{_SMALL}", f"for{_SMALL}": f"yes,{_SMALL}", "cannot tell": "cannot tell",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What follows for one claim.

    Attributes:
        claim: a sentence, without its full stop, that holds where the number is above zero. Where something is
            published, the claim says what that says.
        estimate: the number.
        low, high: its 95 % interval.
        n: how many measurements it comes from.
        margin: the smallest number that matters, in the same unit; zero where any does.
        because: why a smaller one does not matter.
        published: who says so, such as "ICML 2024, table 3"; empty if nobody does.
        rejected: False where a test that corrects for many comparisons does not reject zero: then nothing is told
            that the interval alone would tell.
    """

    claim: str
    estimate: float
    low: float
    high: float
    n: int
    margin: float = 0.0
    because: str = ""
    published: str = ""
    rejected: bool = True

    def __post_init__(self):
        if self.margin and not self.because:
            raise GradeclipError(
                f"a margin needs its reason: say why {self.margin:g} is the smallest difference that matters in "
                f"{self.claim!r}, because='...'",
            )
        verdict(self.low, self.high, self.margin, "", "", "")  # refuses what is no margin or no interval

    @property
    def answer(self) -> str:
        """One of "for", "against", "equivalent", "cannot tell"."""
        found = verdict(self.low, self.high, self.margin, "for", "against", "equivalent")
        return found if self.rejected or found == "equivalent" else "cannot tell"

    @property
    def group(self) -> str:
        """The answer; or, of those that cannot tell, the direction, where the whole interval has one."""
        if self.answer != "cannot tell" or not self.rejected or self.low <= 0 <= self.high:
            return self.answer
        return f"{'for' if self.low > 0 else 'against'}{_SMALL}"

    @property
    def contradicts(self) -> bool:
        """Whether it speaks against what is published: no effect that matters, or one that points the other way."""
        return bool(self.published) and (self.answer in ("against", "equivalent") or (self.rejected and self.high < 0))

    def __str__(self) -> str:
        return self.markdown.replace("**", "")

    @property
    def clearness(self) -> float:
        """The estimate's magnitude over the width of its interval: it has no unit, so claims can be ordered by it."""
        return abs(self.estimate) / max(self.high - self.low, 1e-12)

    @property
    def markdown(self) -> str:
        """The sentence."""
        estimate, low, high = np.round([self.estimate, self.low, self.high], 3) + 0.0  # no "-0.000"
        found = f"{self.claim}: **{_SAID[self.group]}**, {estimate:+.3f} [{low:+.3f}, {high:+.3f}], n = {self.n}"
        if self.answer == "equivalent" or self.group.endswith(_SMALL):
            found += f" (below {self.margin:g} does not matter: {self.because})"
        if self.published:
            says = "as published" if self.answer == "for" else "published is that it holds"
            found += f"; {_AGAINST if self.contradicts else says} ({self.published})"
        return f"{found}."

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/markdown": escape(self.markdown, quote=False), "text/plain": str(self)}


@dataclass
class Takeaways:
    """All verdicts of one notebook. Whatever was judged is in the text; nothing takes it out.

    Attributes:
        margin: the smallest difference that matters, for claims that do not say another.
        because: why.
    """

    margin: float = 0.0
    because: str = ""
    _by_claim: dict[str, Verdict] = field(default_factory=dict, init=False, repr=False)

    def judge(
        self, claim: str, values: ArrayLike, than: ArrayLike = 0.0, *, clusters: Sequence | None = None,
        margin: float | None = None, because: str = "", published: str = "",
    ) -> Verdict:  # fmt: skip
        """The verdict on a mean, or on a mean difference of pairs."""
        values, than = np.asarray(values, dtype=float), np.asarray(than, dtype=float)
        if than.ndim:
            low, high = difference_interval(values, than, clusters)
        else:
            low, high = interval(values, clusters) - than
        estimate = float(np.mean(values - than))
        return self.add(claim, estimate, low, high, len(values), margin=margin, because=because, published=published)

    def add(
        self, claim: str, estimate: float, low: float, high: float, n: int, *, margin: float | None = None,
        because: str = "", published: str = "",
    ) -> Verdict:  # fmt: skip
        """The verdict on a number whose 95 % interval is known, such as a correlation's."""
        own = self._margin(margin, because)
        return self._keep(Verdict(claim, float(estimate), float(low), float(high), n, *own, published))

    def read(
        self, table: pd.DataFrame, claim: str, *, value: str | None = None, minus: float = 0.0,
        margin: float | None = None, because: str = "", published: str = "",
    ) -> list[Verdict]:  # fmt: skip
        """The verdicts on all rows of a table of estimates, as `paired` and `summarise` give it."""
        value = value or next((name for name in ("difference", "mean", "value") if name in table), "difference")
        columns(table, (value, "low", "high", "n"))
        own, found = self._margin(margin, because), []
        for row in table.to_dict("records"):
            estimate, low, high = (float(row[name]) - minus for name in (value, "low", "high"))
            said, rejected = claim.format(**row), bool(row.get("p_holm", 0.0) < 0.05)
            found.append(Verdict(said, estimate, low, high, int(row["n"]), *own, published, rejected))
        if len({one.claim for one in found}) < len(found):
            msg = f"two rows make the same claim: name more columns of the table in {claim!r}"
            raise GradeclipError(msg)
        return [self._keep(one) for one in found]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All of them, in the order of the text: what contradicts what is published, then by answer and clearness."""
        groups = [*_SAID]
        clearest = sorted(self._by_claim.values(), key=lambda one: -one.clearness)
        return tuple(sorted(clearest, key=lambda one: (not one.contradicts, groups.index(one.group))))

    def __str__(self) -> str:
        return self.markdown.replace("**", "")

    @property
    def markdown(self) -> str:
        """The text: how many of each answer, and every verdict below its answer."""
        if not self._by_claim:
            return "Nothing was compared."
        counts = Counter(one.group for one in self.verdicts)
        head = ", ".join(f"{counts[group]} {group}" for group in _SAID)
        order = "Within each answer the clearest stand first: estimates that are large for the width of their interval."
        lines = [f"{len(self.verdicts)} claims: {head}. {order}"]
        for said, alike in groupby(self.verdicts, lambda one: _AGAINST if one.contradicts else _SAID[one.group]):
            lines += ["", f"**{said.capitalize()}**", "", *(f"- {one.markdown}" for one in alike)]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/markdown": escape(self.markdown, quote=False), "text/plain": str(self)}

    def _margin(self, margin: float | None, because: str) -> tuple[float, str]:
        return (self.margin, because or self.because) if margin is None else (margin, because)

    def _keep(self, one: Verdict) -> Verdict:
        self._by_claim[one.claim] = one
        return one
