import pytest
import torch

from unsee.answering import answer_logits
from unsee.methods.grad_diff import GradDiff
from unsee.reference import Reference
from unsee.sampling import Sampler
from unsee.train import train

FEW = {
    "steps": 3,
    "lr": 1e-2,
    "forget_batch": 2,
    "visible_batch": 1,
    "retain_batch": 2,
    "general_batch": 2,
    "variants": 2,
    "checkpoint_every": 0,
}


class Watched(GradDiff):
    """Notes what the model and its reference say of one batch at every step."""

    def prepare(self, vlm, split, *, seed):
        rows = Sampler(vlm, split, self, seed).draw(99).forget.batch
        return {"reference": Reference.of(vlm), "rows": rows, "now": [], "before": []}

    def loss(self, vlm, batch, state):
        terms = super().loss(vlm, batch, state)
        with torch.no_grad():
            state["now"].append(answer_logits(vlm, state["rows"])[0])
        with state["reference"].in_place(vlm):
            logits, _ = answer_logits(vlm, state["rows"])
        assert not logits.requires_grad
        state["before"].append(logits)
        Watched.seen = state
        return terms


@pytest.mark.parametrize("extra", [{}, {"lora_rank": 2}], ids=["full", "adapters"])
def test_it_answers_as_the_starting_model_while_training_goes_on(extra, tiny_vlm, small_split):
    method = Watched.model_validate(FEW | extra)
    rows = Sampler(tiny_vlm, small_split, method, 0).draw(99).forget.batch
    with torch.no_grad():
        start, _ = answer_logits(tiny_vlm, rows)
    train(tiny_vlm, small_split, method)
    for before, now, step in zip(
        Watched.seen["before"], Watched.seen["now"], range(3), strict=True
    ):
        assert torch.equal(before, Watched.seen["before"][0])
        torch.testing.assert_close(before, start)
        assert torch.equal(now, before) == (step == 0)


def test_looking_at_it_changes_no_step(tiny_vlm, small_split):
    start = {name: tensor.clone() for name, tensor in tiny_vlm.model.state_dict().items()}
    train(tiny_vlm, small_split, GradDiff.model_validate(FEW))
    expected = {name: tensor.clone() for name, tensor in tiny_vlm.model.state_dict().items()}
    tiny_vlm.model.load_state_dict(start)
    train(tiny_vlm, small_split, Watched.model_validate(FEW))
    after = tiny_vlm.model.state_dict()
    assert all(torch.equal(after[name], expected[name]) for name in expected)


def test_it_holds_what_moves_and_nothing_else(tiny_vlm):
    moving = tiny_vlm.layout.parameter_names(tiny_vlm.model, ["projector"])
    for name, p in tiny_vlm.model.named_parameters():
        p.requires_grad_(name in moving)
    reference = Reference.of(tiny_vlm)
    assert list(reference.weights) == moving
    for name, tensor in reference.weights.items():
        parameter = tiny_vlm.model.get_parameter(name)
        assert torch.equal(tensor, parameter)
        assert tensor.data_ptr() != parameter.data_ptr()


def test_the_model_is_put_back_after_an_exception(tiny_vlm):
    reference = Reference.of(tiny_vlm)
    with torch.no_grad():
        for p in tiny_vlm.model.parameters():
            p.add_(1.0)
    moved = {name: tensor.clone() for name, tensor in tiny_vlm.model.state_dict().items()}
    with reference.in_place(tiny_vlm):
        assert not torch.is_grad_enabled()
    with pytest.raises(KeyboardInterrupt), reference.in_place(tiny_vlm):
        raise KeyboardInterrupt
    assert torch.is_grad_enabled()
    after = tiny_vlm.model.state_dict()
    assert all(torch.equal(after[name], moved[name]) for name in moved)
