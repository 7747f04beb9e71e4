import torch
from PIL import Image

from unsee.models.load import load
from unsee.models.tiny import tiny_llava


def inputs_for(vlm, question="Who is this?"):
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    prompt = vlm.processor.apply_chat_template([turn], add_generation_prompt=True)
    photo = Image.new("RGB", (60, 80), "red")
    return vlm.processor(images=[photo], text=[prompt], return_tensors="pt")


def test_it_is_small_and_generates(tiny_vlm):
    inputs = inputs_for(tiny_vlm)
    tokens = tiny_vlm.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert tokens.shape[1] == inputs["input_ids"].shape[1] + 2
    assert sum(parameter.numel() for parameter in tiny_vlm.model.parameters()) < 80_000


def test_a_photo_takes_36_image_tokens(tiny_vlm):
    tokens = inputs_for(tiny_vlm)["input_ids"]
    assert (tokens == tiny_vlm.model.config.image_token_id).sum() == 36


def test_any_text_survives_the_tokenizer(tiny_vlm):
    tokenizer = tiny_vlm.processor.tokenizer
    text = "Żaneta Öztürk, 12 café"
    tokens = tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_the_picture_decides_the_logits(tiny_vlm):
    inputs = inputs_for(tiny_vlm)
    with torch.no_grad():
        red = tiny_vlm.model(**inputs).logits[:, -1]
        inputs["pixel_values"] = -inputs["pixel_values"]
        other = tiny_vlm.model(**inputs).logits[:, -1]
    assert not torch.allclose(red, other)


def test_the_seed_decides_the_weights_and_random_state_is_left_alone(tiny_folder, tmp_path):
    before = torch.random.get_rng_state()
    again = load(tiny_llava(tmp_path / "again", seed=0), device="cpu")
    other = load(tiny_llava(tmp_path / "other", seed=1), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again.fingerprint == load(tiny_folder, device="cpu").fingerprint
    assert other.fingerprint != again.fingerprint
