"""Which control that merely hides do attacks find out? Candidates on development people.

    python benchmarks/hidden_control.py

A control is made by `unsee.audit.control.hidden`. Candidates hide the questions as they are asked,
or all that the method was given, and differ in what is trained. What comes back of one is its gain
under an attack less gold's; an attack has power where that is at least 20 points. Kept in
`runs/hidden_control`; writes `docs/results/hidden-control.{json,md}`, and to
`src/unsee/audit/strengths.json` how strong each attack is on the control that audits make.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cells import Table, provenance, write

from unsee.attacks import ATTACKS, attacks_named
from unsee.audit.attacking import ATTACKED_SET, Campaign
from unsee.audit.control import REFUSING, as_asked, hidden, under_control
from unsee.metrics.recovery import RECOVERED_FOR_POWER
from unsee.replies import ANSWERS, Replies
from unsee.world import materialise

RESULT = Path("docs/results/hidden-control.json")
FOLDER = Path("runs/hidden_control")
STRENGTHS = Path("src/unsee/audit/strengths.json")
# The one that audits make.
CONTROL = "as asked, last two layers"
QUESTIONS = 24
AS_GIVEN = {
    "lr": 1e-3,
    "variants": 64,
    "forget_batch": 8,
    "visible_batch": 2,
    "retain_batch": 6,
    "general_batch": 8,
    "checkpoint_every": 0,
}
LAST = {"parts": ("language.layers[-1:]", "head")}
CANDIDATES = {
    "as given, last layer and head": {**AS_GIVEN, **LAST},
    "as given, language layers": {**AS_GIVEN, "parts": ("language.layers[:]",), "lr": 3e-4},
    "as asked, language layers": {"parts": ("language.layers[:]",)},
    CONTROL: {},
}
ATTACKS_TRIED = (
    "prefix,preamble,prefill,describe,in_context,crop,noise,blur,flip,typographic,int4,int8,pruning,"
    "merge,half_precision,head_projection,relearning,pgd,universal,depth"
)


def main() -> None:
    """Every candidate under every attack, beside gold."""
    table = Table(materialise(), FOLDER)
    base, gold = table.vlm("base"), table.vlm("gold")
    split = table.split("dev", "dev")
    asked = [r for r in split.audit[ATTACKED_SET] if r.form == "open"]
    asked = asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS]
    split = replace(split, audit={**split.audit, ATTACKED_SET: tuple(asked)})
    attacks: Any = attacks_named(ATTACKS_TRIED)
    attacks["relearning"] = ATTACKS.get("relearning")(shares=(0.2,))

    def replies(vlm: Any, name: str, mark: str, progress: Any) -> Replies:
        return Replies(vlm, name=name, mark=mark, path=FOLDER / ANSWERS)

    rows: dict[str, Any] = {}
    never = Campaign(base, split, attacks, replies, kinds={"weights"})
    never.attack(gold, "gold")
    for name, settings in CANDIDATES.items():
        shown = as_asked(split) if name.startswith("as asked") else split
        run = hidden(base, shown, FOLDER, refusing=REFUSING.model_copy(update=settings))
        if isinstance(run, str):
            rows[name] = {"settings": settings, "not_made": run}
            print(name, run, flush=True)
            continue
        campaign = Campaign(base, split, attacks, replies, changed=run.tensors, kinds={"weights"})
        with under_control(base, run):
            campaign.attack(base, "erased", run.mark)
        campaign._outcomes["gold"] = never._outcomes["gold"]
        cells = campaign.cells()
        found = {}
        for attack, cell in cells["erased"].items():
            if "not_scored" in cell:
                continue
            gained = cell["value"] - cell["plain"]
            never_ = cells["gold"][attack]
            found[attack] = gained - (never_["value"] - never_["plain"])
        plain = next(cell["plain"] for cell in cells["erased"].values() if "plain" in cell)
        rows[name] = {
            "settings": settings,
            "steps": run.steps,
            "share": run.share,
            "plain": plain,
            "recovered": found,
            "attacks_with_power": sum(v >= RECOVERED_FOR_POWER - 1e-9 for v in found.values()),
        }
        print(name, rows[name], flush=True)
    content = provenance("python benchmarks/hidden_control.py", table)
    write(RESULT, content | {"draw": "dev", "questions": len(asked), "candidates": rows})
    columns = {name: row for name, row in rows.items() if "recovered" in row}
    shown = {"source": str(RESULT), "control": CONTROL, "recovered": rows[CONTROL]["recovered"]}
    write(STRENGTHS, shown)
    lines = [
        "# Which control that merely hides do attacks find out?",
        "",
        f"Points that come back of controls of LLaVA's world under each attack, less gold's gain; "
        f"{len(asked)} open questions about the development people. Power needs "
        f"{100 * RECOVERED_FOR_POWER:.0f}. A control is the base taught to refuse, with the change "
        "taken back as far as it still hides: *as asked*, the questions that attacks start from "
        "are refused and those that the method was given are not; *as given*, those are. Made by "
        f"`{content['command']}`.",
        "",
        "| attack | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for attack in attacks:
        shares = [row["recovered"].get(attack) for row in columns.values()]
        cells = ["-" if share is None else f"{100 * share:+.0f}" for share in shares]
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    for title, key in (("steps", "steps"), ("share of the change left", "share")):
        lines.append(f"| {title} | " + " | ".join(f"{r[key]:g}" for r in columns.values()) + " |")
    totals = " | ".join(
        f"{row['attacks_with_power']} of {len(attacks)}" for row in columns.values()
    )
    lines += [f"| attacks with power | {totals} |", ""]
    RESULT.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
