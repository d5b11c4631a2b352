"""PASS: keep pictures that show nobody and that may be used, for learning without labels.

A pool is judged rule by rule, from cheap to dear: licence, attribution, take-downs, size, single colour, faces, people,
duplicates, cap, review. A rule sees one image and gives reasons against it; the reasons of all rules are united.
Duplicates and the cap on images of one photographer compare images, so they come after the others. A seeded sample of
what is left goes to a reviewer, whose findings bound the share still hidden (Clopper and Pearson, 1934).

Asano et al., 2021, arXiv:2109.13228; code: yukimasano/PASS.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from rushlight.core.arguments import Count, NotNegative, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.core.findings import Findings, Measure, measures
from rushlight.data.columns import decode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit import duplicates, reviews
from rushlight.data.edit.pool import Pool
from rushlight.data.sources import originals
from rushlight.methods.curate.pass_ import detect, rules
from rushlight.methods.curate.pass_.rules import Judged, Rule
from rushlight.run.budget import Spent
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, RunContext, Stage


@settings
class Pass(Stage):
    """Keeps images that may be used, and that show nobody."""

    card = Card(
        id="pass",
        title="PASS: An ImageNet replacement for self-supervised pretraining without humans",
        paper="arXiv:2109.13228",
        code="yukimasano/PASS",
        family="curate",
        role="curator",
        needs=Needs("image"),
        gives="a pool with a reason for each image that is gone, and a bound on what was missed",
        says="MoCo-v2, 200 epochs, linear on ImageNet / Places205: 60.6 / 50.1 from ImageNet, 59.5 / 52.8 from PASS; "
        "transfer, human pose too, is on a par",
    )
    spends = False

    licences: Sequence[str] | None = ("CC BY",)
    """Licences that are allowed, where the data have a column `licence`; None allows all."""
    attribution: bool = True
    """A `creator` must be named, where the data have that column."""
    smallest: Whole = 16
    """Pixels of the shorter side of the original, at least."""
    flat: NotNegative = 3.0
    """An image whose channels all deviate by less (of 255) is of a single colour."""
    faces: str | None = "lbp"
    """The detector of faces, or None."""
    people: str | None = None
    """The detector of people (`retinanet_resnet50_fpn_v2`, …), or None."""
    person_weights: str | None = None
    """Its weights: a safetensors file, or `fetch`."""
    threshold: SomeShare = 0.5
    """A detector's score from which an image is out."""
    detectors: Mapping[str, detect.Detector] | None = None
    """Further detectors of your own, by name: images → scores."""
    longest: Count | None = 512
    """Detectors see the original files at up to so many pixels; None: the packed images."""
    duplicates: Literal["exact", "near", "none"] = "exact"
    """Keep only the first of images that are equal (`exact`) or look the same (`near`)."""
    cap: Count | None = None
    """Most images of one creator, drawn by the seed."""
    review: Whole = 200
    """How many of the kept images a reviewer is to see, drawn by the seed."""
    verdicts: str | None = None
    """A CSV file with the columns `name` and `verdict` (keep or remove): the reviewed sample."""
    takedown: str | None = None
    """A file with the names of images that must go."""
    previous: str | None = None
    """The `curation.csv` of the version before: what it removed stays removed."""
    thorough: bool = False
    """Every rule sees every image, so that each image has all its reasons."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(f"a detector's threshold lies above 0, up to 1; {self.threshold:g} does not")

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Return the kept images, and the model unchanged; the pool and the findings hold the rest.

        Raises:
            UserError: a file or a detector cannot be used, or no image is left.
        """
        started, pool = time.monotonic(), Pool.of(data)
        for rule in self.rules(data, ctx.device):
            pool = rules.judge(rule, data, pool, everything=self.thorough)
        for rule in (self._equal, self._capped(ctx.seed)):
            pool = rules.judge(rule, data, pool, everything=False)
        if not bool(pool.kept.any()):
            raise UserError(f"'pass' keeps none of {len(data):,} images: {_most(pool)}; loosen that rule")
        sample = rules.sample(pool, self.review, ctx.seed)
        pool, findings = self._reviewed(pool.score("review", sample), data)
        spent = Spent(seconds=time.monotonic() - started)
        return Outcome(pool.select(data), model, spent, findings=findings, pool=pool)

    def rules(self, data: Dataset, device: str = "cpu") -> list[Rule]:
        """Return the rules that judge one image at a time, from cheap to expensive."""
        found: list[Rule] = []
        if self.licences is not None and "licence" in data:
            found.append(rules.licensed(self.licences))
        if self.attribution and "creator" in data:
            found.append(_attributed)
        found += [rules.listed("takedown: asked for", reviews.names(self.takedown))] if self.takedown else []
        gone = reviews.removed(self.previous) if self.previous else []
        found += [rules.listed("version: removed in an earlier one", gone)] if gone else []
        found += [self._small, self._flat]
        found += [self._detected("face", detect.create(self.faces))] if self.faces else []
        if self.people:
            found.append(self._detected("person", detect.create(self.people, self.person_weights, device)))
        return found + [self._detected(name, each) for name, each in (self.detectors or {}).items()]

    # --- one image at a time ---

    def _small(self, data: Dataset, rows: Tensor) -> Judged:
        sizes = data["size"][rows] if "size" in data else torch.tensor([[data.height, data.width]]).expand(len(rows), 2)
        shorter = sizes.amin(1)
        return {f"size: a side under {self.smallest} pixels": shorter < self.smallest}, {"side": shorter.float()}

    def _flat(self, data: Dataset, rows: Tensor) -> Judged:
        parts = [data.read("image", part).flatten(2).float().std(2).amax(1) for part in rows.split(512) if len(part)]
        spread = torch.cat([torch.zeros(0), *parts])
        return {"colour: a single one": spread < self.flat}, {"spread": spread}

    def _detected(self, what: str, detector: detect.Detector) -> Rule:
        def rule(data: Dataset, rows: Tensor) -> Judged:
            seen = [detector(images).float() for images in originals.pixels(data, rows, self.longest)]
            scores = torch.cat([torch.zeros(0), *seen])
            return {f"{what}: found by a detector": scores >= self.threshold}, {what: scores}

        return rule

    # --- one image beside others ---

    def _equal(self, data: Dataset, rows: Tensor) -> Judged:
        if self.duplicates == "none":
            return {}, {}
        chosen = data.select(rows)
        pairs = [(group[0], other) for group in duplicates.exact(chosen) for other in group[1:]]
        if self.duplicates == "near" and len(rows) > 1:
            pairs += [(int(a), int(b)) for a, b in duplicates.near(chosen)]
        return {"duplicate: of an earlier image": rules.not_first(len(rows), pairs)}, {}

    def _capped(self, seed: int) -> Rule:
        def rule(data: Dataset, rows: Tensor) -> Judged:
            if self.cap is None or "creator" not in data:
                return {}, {}
            names, so_far = data.names, Counter[str]()
            creators = decode_text(data["creator"][rows])
            over = torch.zeros(len(rows), dtype=torch.bool)
            for place in sorted(range(len(rows)), key=lambda i: rules.lot(names[int(rows[i])], seed)):
                so_far[creators[place]] += 1
                over[place] = bool(creators[place]) and so_far[creators[place]] > self.cap
            return {f"cap: more than {self.cap} of one creator": over}, {}

        return rule

    # --- the review ---

    def _reviewed(self, pool: Pool, data: Dataset) -> tuple[Pool, Findings]:
        """Return the pool without what a reviewer removed, and what the review says about the rest."""
        left = int(pool.kept.sum())
        verdicts = reviews.verdicts(self.verdicts) if self.verdicts else {}
        verdict = torch.tensor([verdicts.get(name, torch.nan) for name in pool.names])
        judged = pool.score("verdict", verdict).remove("review: removed by a reviewer", verdict == 1)
        seen = ~pool.scores["review"].isnan() & ~verdict.isnan()
        n, k = int(seen.sum()), int((seen & (verdict == 1)).sum())
        counts = {"images": len(pool), "kept": int(judged.kept.sum()), "reviewed": n, "found": k}
        found = Findings("pass", measures(counts, "count"), warnings=tuple(self._notes(data, pool, verdicts, n)))
        return judged, _bounded(found, left - int((pool.kept & ~verdict.isnan()).sum())) if n else found

    def _notes(self, data: Dataset, pool: Pool, verdicts: Mapping[str, float], n: int) -> list[str]:
        notes = []
        if self.licences is not None and "licence" not in data:
            notes.append("No licence is known of any image, so the licence rule was not applied.")
        if self.attribution and "creator" not in data:
            notes.append("No creator is known of any image, so attribution was not checked.")
        if not (self.faces or self.people or self.detectors):
            notes.append("No detector was used: people were not looked for.")
        if not n:
            notes.append("Nothing was reviewed: how much the detectors missed is not known.")
        asked = reviews.names(self.takedown) if self.takedown else []
        strange = [name for name in (*asked, *verdicts) if name not in set(pool.names)]
        if strange:
            notes.append(f"{len(strange)} names in the lists are of no image here, such as '{strange[0]}'.")
        return notes


def _bounded(found: Findings, unseen: int) -> Findings:
    """Return the findings with what a review of some kept images says of the `unseen` ones (Clopper and Pearson)."""
    n, k = int(found.numbers["reviewed"]), int(found.numbers["found"])
    share, bound = k / n, reviews.at_most(k, n)
    rest = (
        Measure("residual share", share, high=bound, kind="share", n=n),
        Measure("residual images", unseen * share, high=unseen * bound, kind="count"),
    )
    said = (
        f"A reviewer saw {n:,} images drawn at random from those that {found.judge} had kept, and removed {k:,}. Among "
        f"the others {100 * share:.1f} % are expected to be like these, and with 95 % confidence at most "
        f"{100 * bound:.1f} %: {unseen * bound:,.0f} images (Clopper and Pearson)."
    )
    headline = f"of those that nobody reviewed, at most {100 * bound:.1f} % should be gone too"
    return replace(found, measures=(*found.measures, *rest), notes=(said,), headline=headline)


def _attributed(data: Dataset, rows: Tensor) -> Judged:
    return {"attribution: no creator is given": ~data.known("creator")[rows]}, {}


def _most(pool: Pool) -> str:
    worst = max(pool.rates(), key=lambda rate: rate["images"])
    return f"'{worst['reason']}' speaks against {worst['images']:,} of them"
