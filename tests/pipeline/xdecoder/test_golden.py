"""Parity with the published code: any folder of that form, see fact sheet xdecoder.md 13.

Tolerances are the fact sheet's: what the published code differs by from itself on other CPU
kernels, times about ten. Attention bits, panoptic maps and token ids must agree exactly.
"""

import json

import numpy as np
import pytest
import torch

from pipeline.xdecoder.class_names import BACKGROUND, CLASSES, NUM_THINGS, TEMPLATES
from pipeline.xdecoder.panoptic import keep_queries, merge
from pipeline.xdecoder.pixel_decoder import flatten_level
from pipeline.xdecoder.positions import sine_positions
from pipeline.xdecoder.tokenizer import END, START, clip_tokenizer
from tests.pipeline.xdecoder.golden import each_set, file, run, tiny_tokenizer

FEATURES, TEXT, LOGITS = 2e-5, 2e-6, 2e-4  # largest absolute differences

pytestmark = pytest.mark.data


def close(ours: torch.Tensor, theirs: np.ndarray, atol: float) -> None:
    assert tuple(ours.shape) == theirs.shape
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=atol)


def panoptic_of(ours, theirs_ids, theirs_info) -> None:
    np.testing.assert_array_equal(ours.ids, theirs_ids)
    info = [
        {"id": number, "isthing": bool(label < NUM_THINGS), "category_id": int(label)}
        for number, label in enumerate(ours.category)
    ]
    assert info[1:] == theirs_info
    assert ours.category[0] == -1


@each_set
def test_classes_are_those_of_the_set(folder):
    found = run(folder)
    names = [*CLASSES, BACKGROUND] if found.model.family.has_background else list(CLASSES)
    assert found.meta["class_names"] == names
    assert found.meta["thing_ids"] == list(range(NUM_THINGS))


@each_set
def test_text(folder):
    found = run(folder)
    encoder, language = found.model.predictor.lang_encoder, found.language
    ids = tiny_tokenizer().encode(found.meta["texts"], encoder.context)
    np.testing.assert_array_equal(ids, language["input_ids"])
    ids = torch.from_numpy(ids)
    with torch.inference_mode():
        close(encoder.lang_encoder(ids), language["last_hidden_state"], FEATURES)
        close(encoder.project(ids), language["embedding_unnormalised"], FEATURES)
        close(encoder(ids), language["embedding"], TEXT)
    close(found.classes, language["class_embeddings"], TEXT)
    close(found.classes, found.tensors["text_embeddings"], TEXT)
    close(encoder.logit_scale, language["logit_scale"], 0)


@each_set
def test_backbone_and_pixel_decoder(folder):
    found = run(folder)
    for number, level in enumerate(found.maps):
        close(level, found.tensors[f"backbone_res{number + 2}"], FEATURES)
    theirs = found.tensors["position_embedding_res5"]
    positions = sine_positions(*theirs.shape[2:], theirs.shape[1], torch.device("cpu"))
    close(positions.T.reshape(theirs.shape), theirs, FEATURES)
    if "transformer_encoder" in found.tensors:
        close(found.encoded, found.tensors["transformer_encoder"], FEATURES)
    for number, level in enumerate(found.features.levels):
        close(level, found.tensors[f"multi_scale_{number}"], FEATURES)
    close(found.features.mask_features, found.tensors["mask_features"], FEATURES)


@each_set
def test_every_layer_of_the_decoder(folder):
    found = run(folder)
    tensors = found.tensors
    for number, step in enumerate(found.steps[:-1]):
        masks = tensors[f"aux{number}_masks"]
        stride = step.masks.shape[-1] // masks.shape[-1]  # stored thinned in later layers
        close(step.logits, tensors[f"aux{number}_logits"], LOGITS)
        close(step.masks[..., ::stride, ::stride], masks, LOGITS)
        shape = tensors[f"attn_mask_{number}_shape"]
        bits = np.unpackbits(tensors[f"attn_mask_{number}"])[: shape.prod()].reshape(shape)
        np.testing.assert_array_equal(step.blocked.numpy(), bits.astype(bool))
    close(found.steps[-1].logits, tensors["pred_logits"], LOGITS)
    close(found.steps[-1].masks, tensors["pred_masks"], LOGITS)


@each_set
def test_proposals(folder):
    found = run(folder)
    if "interm_boxes" not in found.tensors:
        pytest.skip("this family proposes nothing")
    predictor, levels = found.model.predictor, found.features.levels[::-1]
    memory = torch.cat([flatten_level(level) for level in levels], dim=1)
    with torch.inference_mode():
        sizes = [tuple(level.shape[-2:]) for level in levels]
        proposals = predictor.propose(memory, sizes, found.classes)
        said = predictor.predict(proposals.content, found.features.mask_features, found.classes)
    close(proposals.boxes, found.tensors["interm_boxes"], FEATURES)
    close(said.logits, found.tensors["interm_logits"], LOGITS)


@each_set
def test_panoptic_map(folder):
    found = run(folder)
    meta = found.meta
    (ours,) = found.model.panoptic(
        found.steps[-1],
        tuple(meta["image_size"]),
        tuple(meta["output_size"]),
        meta["object_mask_threshold"],
        meta["overlap_threshold"],
    )
    panoptic_of(ours, found.tensors["panoptic_seg"], meta["segments_info"])


def test_panoptic_rule_alone():
    cases = json.loads(file("postprocess/cases.json").read_text())
    arrays = np.load(file("postprocess/cases.npz"))
    assert cases
    for name, case in cases.items():
        logits, masks = (
            torch.from_numpy(arrays[f"{name}_{kind}"]).float() for kind in ("logits", "masks")
        )
        kept = keep_queries(logits, case["object_mask_threshold"], None)
        size = tuple(masks.shape[1:])
        ours = merge(kept, masks[kept.query_idx], size, case["overlap_threshold"])
        panoptic_of(ours, arrays[f"{name}_panoptic"], case["segments_info"])


def test_token_ids_of_the_real_vocabulary():
    tokenizer = clip_tokenizer()
    cases = json.loads(file("real_clip_token_ids.json").read_text())
    assert len(cases) > 5
    for case in cases:
        found = tokenizer.tokens(case["text"], {})
        assert [tokenizer.ids[START], *found, tokenizer.ids[END]] == case["input_ids"], case


def test_tiny_vocabulary_and_templates():
    vocabulary = json.loads(file("tiny_tokenizer/vocab.json").read_text())
    assert tiny_tokenizer().ids == vocabulary
    assert list(TEMPLATES) == json.loads(file("prompt_templates.json").read_text())
