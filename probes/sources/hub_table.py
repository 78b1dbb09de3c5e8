"""Networks of others, as data: where each is loaded from, how it is called, what it gives, whose licence it has.

A new one is one `HubEntry` here: it is then a name of `--sources`. `hub.py` loads it, `adapter.py` calls and checks it. Facts are from the
repositories' READMEs and hubconf files; nothing here has been run with the published weights, which this project does not
fetch unless told to (`--allow-download`). Left out for want of a fact: FeatUp's vit, clip, maskclip and resnet50 (patch),
UPLiFT's sd15_vae (a latent's grid), V-JEPA 2.1 (its checkpoints' addresses in a copy of the hub file), JAFAR and LiFT (no
hubconf), CAPI (layout of its map).
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.sources.adapter import Arguments, Call

APACHE, MIT = "Apache-2.0", "MIT"
DINOV3 = "DINOv3 License (gated)"


@dataclass(frozen=True)
class HubEntry:
    """name: on the command line. entry: callable of the repository's hubconf, called with `arguments`.

    weights_argument: the argument that takes a file of --hub-weights; needs_weights: it must be given. part: which item of
    what the entry returns is the network.
    """

    name: str
    title: str
    repository: str
    entry: str
    call: Call
    licence: str
    arguments: Arguments = ()
    weights_argument: str = ""
    needs_weights: bool = False
    part: int | None = None


def _featup(entry: str, title: str, patch: int) -> HubEntry:
    # Gives 16 times the token grid, not the picture: 256 for 224 pixels at patch 14.
    call = Call(result="dense", patch=patch, tokens_module="model", dense_size="any")
    return HubEntry(f"featup_{entry}", f"FeatUp, {title}", "mhamilton723/FeatUp", entry, call, MIT)


def _loftup(entry: str, backbone: str) -> HubEntry:
    call = Call(order="features, image", dense_size="any", backbones=(backbone,))
    return HubEntry(entry, f"{backbone} + LoftUp", "andrehuang/loftup", entry, call, MIT)


def _anyup(entry: str) -> HubEntry:
    call = Call(order="image, features", dense_size="picture")
    arguments: Arguments = (("use_natten", False),)
    title = f"encoder + {entry.replace('anyup', 'AnyUp').replace('_', ' ')}"
    return HubEntry(entry, title, "wimmerth/anyup", entry, call, "CC-BY-4.0", arguments)


def _uplift(entry: str, title: str, patch: int) -> HubEntry:
    call = Call(result="dense", patch=patch, dense_size="any")
    return HubEntry(entry, f"UPLiFT, {title}", "mwalmer-umd/UPLiFT", entry, call, MIT, (("include_extractor", True),))


def _dinov2(size: str, registers: bool = False) -> HubEntry:
    name = f"dinov2_vit{size}14{'_reg' if registers else ''}"
    title = f"DINOv2 ViT-{size.upper()}/14{' with registers' if registers else ''}"
    call = Call(patch=14, method="get_intermediate_layers", arguments=(("n", 1), ("reshape", True)), path=(0,))
    return HubEntry(f"hub_{name}", title, "facebookresearch/dinov2", name, call, APACHE)


def _dinov3(entry: str, title: str) -> HubEntry:
    arguments: Arguments = (("n", 1), ("reshape", True), ("norm", True))
    call = Call(patch=16, method="get_intermediate_layers", arguments=arguments, path=(0,))
    return HubEntry(
        f"hub_{entry}", title, "facebookresearch/dinov3", entry, call, DINOV3, (), "weights", needs_weights=True
    )


def _vjepa2(entry: str, title: str) -> HubEntry:
    # Tokens of one tubelet of two frames: a picture is given twice.
    call = Call(result="tokens", patch=16, frames=2)
    return HubEntry(entry, title, "facebookresearch/vjepa2", entry, call, "MIT and Apache-2.0", part=0)


def _franca(size: str) -> HubEntry:
    call = Call(result="tokens", patch=14, method="forward_features", path=("x_norm_patchtokens",))
    name = f"franca_vit{size}14"
    arguments: Arguments = (("weights", "IN21K"),)
    return HubEntry(
        name, f"Franca ViT-{size.upper()}/14", "valeoai/Franca", name, call, "RAIL, research only", arguments
    )


def _radio(version: str, licence: str) -> HubEntry:
    call = Call(normalisation="unit", arguments=(("feature_fmt", "NCHW"),), path=(1,))
    arguments: Arguments = (("version", version),)
    return HubEntry(version, version, "NVlabs/RADIO", "radio_model", call, licence, arguments)


def _flowfeat(name: str) -> HubEntry:
    patch = 14 if "14" in name else 16
    call = Call(result="tokens and dense", patch=patch, multiple=2 * patch)
    return HubEntry(
        f"official_{name}",
        f"official FlowFeat, {name}",
        "tum-vision/flowfeat",
        "flowfeat",
        call,
        "Apache-2.0" if "mae" not in name else "Apache-2.0, encoder CC-BY-NC-4.0",
        (("name", name),),
    )


HUB: tuple[HubEntry, ...] = (
    _featup("dinov2", "DINOv2 ViT-S/14", 14),
    _featup("dino16", "DINO ViT-S/16", 16),
    _loftup("loftup_dinov2s", "dinov2_vits14"),
    _loftup("loftup_dinov2b", "dinov2_vitb14"),
    _anyup("anyup"),
    _anyup("anyup_multi_backbone"),
    HubEntry(
        "naf",
        "encoder + NAF (needs natten)",
        "valeoai/NAF",
        "naf",
        Call(order="image, features, size", dense_size="picture"),
        APACHE,
    ),
    _uplift("uplift_dinov2_s14", "DINOv2 ViT-S/14", 14),
    _uplift("uplift_dinov3_splus16", "DINOv3 ViT-S+/16", 16),
    *(_dinov2(size) for size in "sblg"),
    *(_dinov2(size, registers=True) for size in "sblg"),
    _dinov3("dinov3_vits16", "DINOv3 ViT-S/16"),
    _dinov3("dinov3_vits16plus", "DINOv3 ViT-S+/16"),
    _dinov3("dinov3_vitb16", "DINOv3 ViT-B/16"),
    _dinov3("dinov3_vitl16", "DINOv3 ViT-L/16"),
    _vjepa2("vjepa2_vit_large", "V-JEPA 2 ViT-L/16"),
    _vjepa2("vjepa2_vit_huge", "V-JEPA 2 ViT-H/16"),
    _franca("b"),
    _franca("l"),
    _radio("radio_v2.5-b", "NVIDIA, non-commercial"),
    _radio("c-radio_v3-b", "NVIDIA Open Model Licence"),
    _radio("c-radio_v3-l", "NVIDIA Open Model Licence"),
    *(_flowfeat(name) for name in ("dino_vits16_yt", "dinov2_vits14_yt", "dinov2_vitb14_yt", "dinov2_vitb14_kt")),
)
