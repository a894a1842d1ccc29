//! The few words that pages add of their own, in English and Korean side by side.

use crate::Language;

/// What pages say, whatever they are about.
pub(crate) struct Words {
    pub(crate) not_measured: &'static str,
    pub(crate) contents: &'static str,
    pub(crate) log_scale: &'static str,
    pub(crate) as_table: &'static str,
    pub(crate) no_script: &'static str,
    pub(crate) mean: &'static str,
    pub(crate) highest: &'static str,
    pub(crate) last: &'static str,
    pub(crate) peak: &'static str,
    pub(crate) keys: &'static str,
}

pub(crate) fn of(language: Language) -> &'static Words {
    match language {
        Language::En => &EN,
        Language::Ko => &KO,
    }
}

const EN: Words = Words {
    not_measured: "not measured",
    contents: "Contents",
    log_scale: "logarithmic",
    as_table: "This chart as a table",
    no_script: "Charts are drawn by JavaScript, which is switched off here. The tables have their values.",
    mean: "mean",
    highest: "highest",
    last: "last",
    peak: "max",
    keys: "The arrow keys go through the values.",
};

const KO: Words = Words {
    not_measured: "측정되지 않음",
    contents: "목차",
    log_scale: "로그 눈금",
    as_table: "이 그래프를 표로 보기",
    no_script: "그래프는 JavaScript로 그리는데 이 브라우저에서는 꺼져 있습니다. 값은 표에 있습니다.",
    mean: "평균",
    highest: "최대",
    last: "마지막",
    peak: "최대",
    keys: "화살표 키로 값을 하나씩 볼 수 있습니다.",
};
