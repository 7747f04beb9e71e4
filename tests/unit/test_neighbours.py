from dataclasses import replace

import torch

from unsee.data.collate import encode
from unsee.neighbours import joint_features, nearest


def test_nearest_by_hand():
    pool = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    queries = torch.tensor([[2.0, 0.0], [0.0, 4.0], [-1.0, -1.0]])
    assert nearest(queries, pool).tolist() == [1, 2, 0]


def test_a_record_of_the_pool_is_nearest_to_itself_and_the_first_of_equals_wins():
    pool = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    assert nearest(pool, pool).tolist() == list(range(20))
    assert nearest(pool, torch.cat([pool, pool])).tolist() == list(range(20))


def test_nearest_as_a_slow_loop():
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(15, 8, generator=generator)
    pool = 100 + torch.randn(30, 8, generator=generator)
    for found, query in zip(nearest(queries, pool).tolist(), queries.tolist(), strict=True):
        distances = [
            sum((a - b) ** 2 for a, b in zip(query, row, strict=True)) for row in pool.tolist()
        ]
        assert found == distances.index(min(distances))


def test_one_in_the_pool_is_everybodys_neighbour():
    assert nearest(torch.randn(3, 4), torch.zeros(1, 4)).tolist() == [0, 0, 0]


def test_features_are_the_state_that_the_first_answer_token_is_read_off(tiny_vlm, small_split):
    records = (*small_split.forget[:3], *small_split.general[-1:])
    found = joint_features(tiny_vlm, records, batch_size=3)
    for record, feature in zip(records, found, strict=True):
        batch = encode(tiny_vlm, [record], answers=False, side="right")
        with torch.no_grad():
            expected = tiny_vlm.model(**batch.inputs()).logits[0, -1]
            logits = tiny_vlm.model.lm_head(feature)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_features_know_photo_and_question_and_not_the_answer(tiny_vlm, small_split):
    first = small_split.forget[0]
    others = [
        replace(first, answer="nobody"),
        replace(first, question="Is it raining?"),
        replace(first, image=small_split.retain[0].image),
    ]
    own, same, *differ = joint_features(tiny_vlm, [first, *others], batch_size=1)
    assert torch.equal(own, same)
    assert not any(torch.allclose(own, other, atol=1e-4) for other in differ)
