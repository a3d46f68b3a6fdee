"""The words of a probe's page, in English and Chinese."""

from __future__ import annotations

from typing import Final

from blankfill.report.words import Language

__all__ = ["WORDS", "say"]

WORDS: Final[dict[str, tuple[str, str]]] = {
    "title": ("Probe", "探针"),
    "of": ("{} in {}: {} family, {} link", "{}（{}）：{} 族，{} 连接"),
    "step": ("step {}", "第 {} 步"),
    "read": ("text {}, state: {}", "文本 {}，状态：{}"),
    "items": ("{} items of {} groups", "{} 条，{} 组"),
    # Sections: the article's words, and what is around them.
    "preparation": ("Data preparation", "数据准备"),
    "family": ("Choice of family", "分布族的选择"),
    "variation": ("Variation explained", "解释的变异"),
    "variance": ("Variance", "方差"),
    "value": ("Value", "效应"),
    "validation": ("Validation", "验证"),
    "fit": ("Whether the fit is right", "拟合是否恰当"),
    "notes": ("What this does not show", "这里没有说明的"),
    # Tiles.
    "explained": ("deviance explained", "解释的偏差"),
    "gain": ("gain over the margin", "相对边际分布的增益"),
    "selectivity": ("selectivity", "选择性"),
    "layer chosen": ("layer chosen", "选中的层"),
    "nats": ("{} \u00b1 {} nats", "{} \u00b1 {} nats"),
    "accuracy": ("accuracy", "正确率"),
    "rank": ("rank correlation", "秩相关"),
    "R2": ("R\u00b2", "R\u00b2"),
    "against": ("{}, margin {}", "{}，边际 {}"),
    # Preparation.
    "records": ("records read", "读入记录"),
    "unreadable": ("not JSON objects", "不是 JSON 对象"),
    "missing": ("nothing in {}", "{} 为空"),
    "duplicates": ("duplicates of text and target", "文本与目标都重复"),
    "contradictions": ("same text, another target (kept)", "文本相同而目标不同（保留）"),
    "too long": ("longer than a row", "超过一行的长度"),
    "kept": ("probed", "用于探针"),
    "left out": ("The first rows that were left out", "最先被略去的行"),
    "columns": ("columns of the representation", "表示的列数"),
    "constant": ("constant columns, dropped", "常数列，已去掉"),
    "rank of columns": ("rank", "秩"),
    "condition": ("condition number", "条件数"),
    "correlation": ("largest correlation of two columns", "两列间最大的相关"),
    "inside": (
        "Standardisation, components and penalties are learnt inside the folds, of the items that "
        "a fit may see.",
        "标准化、主成分与惩罚强度都在折内学得，只用该次拟合可见的条目。",
    ),
    # Families.
    "compared": (
        "All families that the target admits, fitted by maximum likelihood on the same components "
        "of the same items; the lowest BIC is taken.",
        "目标允许的各分布族，在相同条目的相同主成分上以最大似然拟合；取 BIC 最低者。",
    ),
    "family name": ("family", "分布族"),
    "log likelihood": ("log likelihood", "对数似然"),
    "parameters": ("parameters", "参数"),
    "why not": ("why not", "不取的原因"),
    "taken": ("taken", "选中"),
    "without folds": ("without each fold: {}", "每次去掉一折：{}"),
    "words target": ("its values are words", "取值是词"),
    "two values": ("it has two values", "只有两种取值"),
    "more than two values": ("it has more than two values", "取值多于两种"),
    "no order": ("its words have no order (--order)", "词没有次序（--order）"),
    "ordered": ("its words have an order", "词有次序"),
    "not whole": ("not all values are whole numbers", "并非都是整数"),
    "too many values": ("too many values for classes", "取值过多，不能作类别"),
    "negative": ("some values are negative", "有负值"),
    "zero": ("some values are zero", "有零值"),
    "exposure": ("an exposure is for counts", "暴露量只用于计数"),
    "separated": ("its classes are separated perfectly", "类别被完全分离"),
    "no fit": ("the likelihood has no maximum", "似然没有最大值"),
    "": ("higher BIC", "BIC 较高"),
    # Scores.
    "from": ("predicted from", "由何预测"),
    "gain short": ("nats an item", "每条 nats"),
    "measure": ("measure", "指标"),
    "margin": ("margin", "边际"),
    "representation": ("hidden states", "隐藏状态"),
    "untrained": ("the untrained model", "未训练的模型"),
    "words": ("counts of words", "词频"),
    "length": ("length alone", "仅长度"),
    "control": ("control task", "控制任务"),
    "permuted": ("permuted targets", "打乱的目标"),
    "components": ("{} components, likelihood", "{} 个主成分，似然"),
    "scores note": (
        "Nested cross-validation grouped by document: penalty and layer are chosen without the "
        "items that are predicted. Errors are clustered by group.",
        "按文档分组的嵌套交叉验证：惩罚与层的选择都不用被预测的条目。误差按组聚类。",
    ),
    "by layer": ("Deviance explained by layer", "各层解释的偏差"),
    "trained": ("trained", "已训练"),
    "not trained": ("untrained", "未训练"),
    "layer": ("layer", "层"),
    "share": ("share", "比例"),
    "code": ("Online code length by layer", "各层的在线编码长度"),
    "bits": ("bits an item, less the margin's", "每条比特数，减去边际的"),
    "analysis": ("Analysis of deviance by component", "按主成分的偏差分析"),
    "up to": ("components", "主成分"),
    "deviance": ("deviance", "偏差"),
    "ratio": ("likelihood ratio", "似然比"),
    "degrees": ("degrees of freedom", "自由度"),
    "p": ("p", "p"),
    "null": ("none", "无"),
    # Variance.
    "variance chart": ("Variance by mean", "方差与均值"),
    "mean": ("mean", "均值"),
    "as family": ("the family's variance", "分布族的方差"),
    "as seen": ("mean squared residual", "残差平方均值"),
    # Value.
    "effects note": (
        "What one standard deviation more of a component changes, on average over the items, in "
        "the target's own unit; 95 % intervals by drawing the coefficients.",
        "某主成分增加一个标准差，平均使目标改变多少，以目标自己的单位计；95 % 区间由系数抽样得出。",
    ),
    "component": ("component {}", "主成分 {}"),
    "effect": ("effect", "效应"),
    "interval": ("95 % interval", "95 % 区间"),
    "on": ("on the probability of {}", "对 {} 的概率"),
    "on mean": ("on the mean of {}", "对 {} 的均值"),
    "coefficients": ("Every coefficient", "全部系数"),
    "coefficient": ("coefficient", "系数"),
    "standard error": ("standard error", "标准误"),
    "fit summary": (
        "{} on {} components (folds chose {}); log likelihood {}, deviance {} of {}, AIC {}, "
        "BIC {}, dispersion {}.",
        "{}，{} 个主成分（各折选 {}）；对数似然 {}，偏差 {}（零模型 {}），"
        "AIC {}，BIC {}，离散度 {}。",
    ),
    "maximum likelihood": ("Maximum likelihood", "最大似然"),
    "generalized least squares": (
        "Generalized least squares, errors of a group correlated",
        "广义最小二乘，组内误差相关",
    ),
    "clustered": ("Standard errors are clustered by group.", "标准误按组聚类。"),
    "not explained": ("No fit that explains: {}", "没有解释性拟合：{}"),
    # Validation.
    "stability": ("Stability", "稳定性"),
    "of folds": ("deviance explained, fold by fold", "各折解释的偏差"),
    "of seeds": ("over seeds", "各随机种子"),
    "of layers": ("layer that each fold chose", "各折选中的层"),
    "calibration": ("Calibration", "校准"),
    "predicted": ("predicted", "预测"),
    "observed": ("observed", "实际"),
    "right": ("where they are equal", "二者相等处"),
    "slope": ("slope {} \u00b1 {}, mean distance {}", "斜率 {} \u00b1 {}，平均距离 {}"),
    # Diagnostics.
    "worm": ("Worm plot of the quantile residuals", "分位残差的蠕虫图"),
    "normal": ("normal quantile", "正态分位数"),
    "above": ("residual less normal quantile", "残差减正态分位数"),
    "band": ("95 % band", "95 % 带"),
    "test": ("test", "检验"),
    "statistic": ("statistic", "统计量"),
    "found": ("found", "所见"),
    "expected": ("expected", "期望"),
    "normality": ("normality of the residuals (standard deviation)", "残差的正态性（标准差）"),
    "dispersion": ("dispersion", "离散度"),
    "zeros": ("number of zeros", "零的个数"),
    "link": ("link (coefficient of the square)", "连接（平方项系数）"),
    "influence": (
        "{} items have a Cook's distance above 4/n; the largest is {}: {}",
        "{} 条的 Cook 距离大于 4/n；最大 {}：{}",
    ),
    # Notes.
    "note probe": (
        "A probe says what can be read off a state by a generalized linear model, not that the "
        "model makes use of it.",
        "探针只说明广义线性模型能从状态中读出什么，并不说明模型使用了它。",
    ),
    "note no blank": (
        "Texts without a blank are read as Part A alone, which training never shows; the state of "
        "a blank (--at blank) is nearer to what the model was trained for.",
        "没有空白的文本只作为 Part A 读入，训练中从不如此；"
        "空白的状态（--at blank）更接近训练时的用法。",
    ),
    "note words": (
        "Counts of words explain {}, as much as the hidden states or more ({}): nothing here needs "
        "the model.",
        "词频解释了 {}，不少于隐藏状态（{}）：这里的结果不需要模型。",
    ),
    "note untrained": (
        "The untrained model explains {}, as much as the trained one or more ({}).",
        "未训练的模型解释了 {}，不少于已训练的模型（{}）。",
    ),
    "note control": (
        "The control task is learnt as well as the target: what is read may have been learnt by "
        "heart.",
        "控制任务学得与目标一样好：读出的内容可能只是记住的。",
    ),
    "note permuted": (
        "Permuted targets are predicted better than chance by more than three standard errors, "
        "which by chance is rare: distrust the rest.",
        "打乱的目标竟比偶然好出三个标准误以上，这很少出于偶然：其余结果也不可信。",
    ),
    "note edge": (
        "The penalty of most folds is at an end of what was tried ({}), so another may be better.",
        "多数折的惩罚取在所试范围的端点（{}），也许还有更好的。",
    ),
    "note separated": (
        "{} components separate the classes perfectly, so maximum likelihood is fitted on fewer.",
        "{} 个主成分即可将类别完全分离，因此最大似然只用更少的主成分。",
    ),
    "note collinear": (
        "The columns are collinear (condition number {}): single columns have no meaning; "
        "components have, and the penalty is what keeps the other fit together.",
        "各列共线（条件数 {}）：单独的列没有意义；主成分有意义，另一拟合则靠惩罚维持。",
    ),
    "note conditional": (
        "Standard errors take the number of components, which folds chose, as given.",
        "标准误把由各折选出的主成分个数视为给定。",
    ),
    "note independent": (
        "Likelihood-ratio tests take items as independent; the standard errors do not.",
        "似然比检验视各条目相互独立；标准误则不然。",
    ),
    "note link": (
        "The fit that predicts has the {} link, the one that explains {}.",
        "预测用的拟合取 {} 连接，解释用的取 {}。",
    ),
    "note misfit": (
        "The quantile residuals are not normal (p = {}): the {} family does not describe the "
        "target well.",
        "分位残差不正态（p = {}）：{} 族未能很好地描述目标。",
    ),
    "note dispersed": (
        "Counts vary more than a Poisson's ({} times): take --family negative-binomial.",
        "计数的变异大于泊松（{} 倍）：请用 --family negative-binomial。",
    ),
    "note first": (
        "Layer 0 is the same for every item, and was left out.",
        "第 0 层对每一条都相同，已略去。",
    ),
    "note few": ("There are only {} items: errors are wide.", "只有 {} 条：误差很大。"),
}
"""Each key in English, then in Chinese."""


def say(key: str, lang: Language, *values: object) -> str:
    """Give the words of a key, with values in the places that it leaves for them."""
    return WORDS[key][lang == "zh"].format(*values)
