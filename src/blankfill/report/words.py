"""The words of a report, in English and Chinese.

Names of configuration fields and keys of metrics stay as they are: they are what a user types.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["WORDS", "Language", "say"]

Language = Literal["en", "zh"]

WORDS: Final[dict[str, tuple[str, str]]] = {
    # The page.
    "title": ("Training report", "训练报告"),
    "one run": ("One run", "一次训练"),
    "runs": ("{} runs compared", "{} 次训练对比"),
    "made": ("Written {} by blankfill {}", "{} 由 blankfill {} 生成"),
    "self": (
        "This file needs nothing else: no network, no account, no scripts from elsewhere.",
        "本文件自成一体：无需网络、无需账号，不引用任何外部脚本。",
    ),
    "parameters": ("{} parameters", "{} 参数"),
    "layers": ("{} layers of {}", "{} 层，宽 {}"),
    "tokens": ("{} training tokens", "{} 训练词元"),
    "started": ("started {}", "开始于 {}"),
    "progress": ("step {} of {}", "第 {} 步，共 {} 步"),
    "not finished": ("not finished", "尚未完成"),
    "finished": ("finished", "已完成"),
    # Notes.
    "no metrics": (
        "{}: no line of metrics yet; the run has only begun, or its metrics.jsonl is gone.",
        "{}：还没有任何指标；训练刚刚开始，或 metrics.jsonl 已丢失。",
    ),
    "not finite": (
        "{}: {} values are not finite numbers (NaN or infinite) and are left out.",
        "{}：有 {} 个值不是有限数（NaN 或无穷），已略去。",
    ),
    "same": ("{} and {} have the same configuration.", "{} 与 {} 的配置相同。"),
    # Sections.
    "figures": ("Final figures", "最终数值"),
    "learning": ("Learning", "学习情况"),
    "speed": ("Speed", "速度"),
    "fills": ("Sample fills", "填空样例"),
    "differences": ("What differs", "配置差异"),
    "configuration": ("Configuration", "配置"),
    "data": ("Data", "数据"),
    "hardware": ("Hardware and software", "硬件与软件"),
    "changes": ("Changed on the way", "中途的改动"),
    "baselines": ("Beside the baselines", "与基线比较"),
    # Charts.
    "loss": ("Training loss", "训练损失"),
    "validation": ("Validation loss", "验证损失"),
    "loss and validation": ("Loss", "损失"),
    "training": ("training", "训练"),
    "validation short": ("validation", "验证"),
    "start": ("\u2191 {} at {} {}", "\u2191 {}（{} {}）"),
    "by kind": ("Training loss by kind", "各类空白的训练损失"),
    "by language": ("Training loss by language", "各语言的训练损失"),
    "by source": ("Training loss by source", "各数据源的训练损失"),
    "validation by kind": ("Validation loss by kind", "各类空白的验证损失"),
    "validation by language": ("Validation loss by language", "各语言的验证损失"),
    "blank loss": ("Held-out blanks, {}", "留出的空白，{}"),
    "exact match": ("Blanks filled exactly", "填对的空白"),
    "learning rate": ("Learning rate", "学习率"),
    "gradient norm": ("Gradient norm", "梯度范数"),
    "positions per second": ("Positions", "处理位置"),
    "targets per second": ("Targets", "预测目标"),
    "mfu": ("Model FLOPs utilisation (MFU)", "模型浮点利用率（MFU）"),
    "flops": ("Arithmetic rate", "运算速率"),
    "flops model": ("as really done", "实际完成"),
    "flops dense": ("dense convention", "稠密约定"),
    "loss by time": ("Training loss over time", "训练损失随时间"),
    "validation by time": ("Validation loss over time", "验证损失随时间"),
    "evaluated": ("evaluated at the end", "最终评测"),
    "member": ("{}: {}", "{}：{}"),
    "peak": ("Peak: {}FLOP/s ({}). ", "峰值：{}FLOP/s（{}）。"),
    "mfu note": (
        "MFU is the rate of arithmetic as really done (visible rectangles of attention, the output "
        "layer on targets alone) over the peak. The dense convention counts whole rows and every "
        "position.",
        "MFU 为实际完成的运算速率（注意力的可见矩形、仅在目标处计算输出层）与峰值之比。"
        "稠密约定则按整行与全部位置计算。",
    ),
    # Units and axes.
    "step": ("step", "步"),
    "hours": ("hours", "小时"),
    "nats": ("nats per target", "nats / 目标"),
    "nats per token": ("nats per token", "nats / 词元"),
    "share of blanks": ("share of held-out blanks", "占留出空白的比例"),
    "before clipping": ("before clipping", "裁剪之前"),
    "per second": ("per second", "每秒"),
    "per step": ("per step", "每步"),
    "share of peak": ("share of the peak", "占峰值的比例"),
    "logarithmic": ("logarithmic", "对数坐标"),
    # Final figures.
    "figure": ("figure", "项目"),
    "steps done": ("Optimizer steps", "优化步数"),
    "final loss": ("Training loss, nats", "训练损失，nats"),
    "final validation": ("Validation loss, nats", "验证损失，nats"),
    "best validation": ("Best validation loss, nats", "最佳验证损失，nats"),
    "best at": ("{} at step {}", "{}（第 {} 步）"),
    "of evaluation": ("last evaluation, step {}", "最近一次评测，第 {} 步"),
    "of validation": ("in training, step {}", "训练中，第 {} 步"),
    "final exact": ("Filled exactly, {}", "填对比例，{}"),
    "final blank loss": ("Loss on held-out blanks, {}, nats", "留出空白的损失，{}，nats"),
    "epochs": ("Passes over the data", "数据遍数"),
    "positions seen": ("Positions seen", "已处理位置"),
    "training time": ("Training time", "训练用时"),
    "median positions": ("Positions per second, median", "每秒位置，中位数"),
    "median targets": ("Targets per second, median", "每秒目标，中位数"),
    "median mfu": ("MFU, median", "MFU，中位数"),
    "num parameters": ("Parameters", "参数量"),
    "hours minutes": ("{} h {:02} min", "{} 小时 {:02} 分"),
    "minutes seconds": ("{} min {:02} s", "{} 分 {:02} 秒"),
    # Kinds and languages.
    "short": ("short spans", "短片段"),
    "sentence": ("sentences", "句子"),
    "document": ("long blanks", "长空白"),
    "causal": ("whole texts", "整篇"),
    "pair": ("answers", "回答"),
    "en": ("English", "英文"),
    "zh": ("Chinese", "中文"),
    "other": ("other", "其他"),
    # Systems of an evaluation.
    "system": ("system", "系统"),
    "model": ("model", "模型"),
    "trigram": ("trigram", "三元模型"),
    "unigram": ("unigram", "一元模型"),
    "bits per byte": ("bits per byte", "比特 / 字节"),
    "exact fills": ("filled exactly", "填对"),
    "exact given length": ("filled exactly, length given", "填对（已知长度）"),
    "nats per character": ("nats per character", "nats / 字符"),
    "run": ("run", "训练"),
    "reads": ("reads", "可见"),
    "reads both sides": ("both sides", "两侧"),
    "reads left side": ("left side", "左侧"),
    "reads two tokens": ("two tokens", "左侧两个词元"),
    "reads nothing": ("nothing", "无"),
    "blanks note": ("{} blanks in {} documents", "{} 个空白，出自 {} 篇文档"),
    "evaluation note": (
        "Filled exactly asks for the end as well, which nothing tells without the right side; with "
        "the length given, all are told how many tokens to write. ± is one standard error, "
        "blanks of one document counting as one draw. Nats per token compare runs of one "
        "tokenizer, nats per character any.",
        "“填对”要求模型自己找到空白的结尾，不看右侧则无从得知；“已知长度”一列中，"
        "各系统都已知要写多少个词元。± 为一个标准误，同一文档的空白算作一次抽取。"
        "nats / 词元只能在同一分词器之间比较，nats / 字符可以任意比较。",
    ),
    "unlike": (
        "The evaluations of these runs are not set side by side, because they asked different "
        "things. {}. Evaluate them together: {}",
        "这些训练的评测内容不同，因此不并列比较。{}。请一起评测：{}",
    ),
    "unlike law": ("the law", "规则"),
    "unlike seed": ("the seed", "随机种子"),
    "unlike max blanks": ("the most blanks of each language", "每种语言最多的空白数"),
    "unlike text": ("the held-out text", "留出文本"),
    "unlike blanks": ("the blanks", "空白"),
    # Fills.
    "fills note": (
        "Held-out text with one blank, filled greedily. In colour: what the model wrote at the "
        "last validation; after it, where the two differ, the true text.",
        "留出文本中挖去一处，由模型贪心填写。彩色为最近一次验证时模型的填写；若与原文不同，其后为原文。",
    ),
    "at step": ("step {}", "第 {} 步"),
    "truth": ("true text", "原文"),
    "correct": ("correct", "正确"),
    "wrong": ("differs", "不同"),
    "nothing": ("(nothing)", "（无内容）"),
    "how it changed": ("How the answers changed", "答案如何变化"),
    # Differences, configuration and data.
    "every field": ("Every field", "全部字段"),
    "field": ("field", "字段"),
    "from step": ("from step", "自第几步起"),
    "new value": ("new value", "新值"),
    "store": ("store", "数据库"),
    "documents": ("documents", "文档"),
    "num tokens": ("tokens", "词元"),
    "role": ("used for", "用途"),
    "for training": ("training", "训练"),
    "for validation": ("validation", "验证"),
    "fingerprint": ("fingerprint", "指纹"),
    "no differences": (
        "The runs have the same configuration, data, hardware and software.",
        "各次训练的配置、数据、硬件与软件均相同。",
    ),
    "absent": ("absent", "无"),
}
"""Each key in English, then in Chinese."""


def say(key: str, lang: Language, *values: object) -> str:
    """Give the words of a key, with values in the places that it leaves for them."""
    return WORDS[key][lang == "zh"].format(*values)
