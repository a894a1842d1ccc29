//! Figures as a reader wants them: few digits, a unit, and nothing that was not measured.

use crate::Language;

/// Returns `415136` as `415,136`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns about three significant digits; whole numbers from 100 on.
pub fn plain(value: f64) -> String {
    if !value.is_finite() {
        // Nobody should get here; a figure that is none is not to look like one.
        return "—".to_string();
    }
    let size = value.abs();
    if size >= 99.95 {
        let sign = if value < 0.0 { "−" } else { "" };
        return format!("{sign}{}", count(size.round() as u64));
    }
    let text = if size >= 9.995 {
        format!("{value:.1}")
    } else if size >= 0.1 || size == 0.0 {
        format!("{value:.2}")
    } else if size >= 0.001 {
        format!("{value:.3}")
    } else {
        format!("{value:.5}")
    };
    trim(&text).replace('-', "−")
}

/// Takes the zeros away that say nothing: `1.50` is `1.5`, `2.00` is `2`.
fn trim(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text.to_string()
    }
}

fn unit(number: &str, language: Language, en: &str, ko: &str) -> String {
    match language {
        Language::En => format!("{number} {en}"),
        Language::Ko => format!("{number}{ko}"),
    }
}

/// Returns milliseconds, in seconds or minutes where that is easier to read.
pub fn millis(value: f64, language: Language) -> String {
    if value.abs() >= 59_950.0 {
        span(value / 1000.0, language)
    } else if value.abs() >= 999.5 {
        unit(&plain(value / 1000.0), language, "s", "초")
    } else {
        unit(&plain(value), language, "ms", "ms")
    }
}

/// Returns seconds as a span: `45 s`, `2 min`, `2 min 5 s`, `1 h 3 min`.
pub fn span(seconds: f64, language: Language) -> String {
    if seconds < 59.95 || !seconds.is_finite() {
        return unit(&plain(seconds), language, "s", "초");
    }
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    let mut parts = Vec::new();
    if hours > 0 {
        parts.push(unit(&hours.to_string(), language, "h", "시간"));
    }
    if minutes > 0 {
        parts.push(unit(&minutes.to_string(), language, "min", "분"));
    }
    if rest > 0 && hours == 0 {
        parts.push(unit(&rest.to_string(), language, "s", "초"));
    }
    parts.join(" ")
}

/// Returns a moment on an axis of seconds that goes to `high`: `1:05`, `1:00:05`, `−0:30`.
pub fn clock(seconds: f64, high: f64) -> String {
    let whole = seconds.abs().floor() as u64;
    let sign = if seconds < 0.0 && whole > 0 { "−" } else { "" };
    if high.abs() < 3600.0 && whole < 3600 {
        format!("{sign}{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{sign}{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
    }
}

/// Returns a share from 0 to 1 in per cent. What is not nothing is never shown as 0, nor what is not all as 100.
pub fn share(value: f64, language: Language) -> String {
    let percent = value * 100.0;
    let number = if percent > 0.0 && percent < 0.001 {
        "< 0.001".to_string()
    } else if percent > 99.95 && percent < 100.0 {
        trim(&format!("{:.3}", (percent * 1000.0).floor() / 1000.0))
    } else {
        plain(percent)
    };
    unit(&number, language, "%", "%")
}

/// Returns bytes in the unit that fits.
pub fn bytes(value: f64) -> String {
    const STEPS: [(&str, f64); 4] =
        [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1024.0), ("B", 1.0)];
    let (name, size) = STEPS.into_iter().find(|(_, size)| value >= *size).unwrap_or(("B", 1.0));
    format!("{} {name}", plain(value / size))
}

/// Returns microseconds, of CPU for instance.
pub fn micros(value: f64, language: Language) -> String {
    if value >= 10_000.0 {
        millis(value / 1000.0, language)
    } else {
        unit(&plain(value), language, "µs", "µs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        for (value, text) in [
            (0.0, "0"),
            (0.0004, "0.0004"),
            (0.42, "0.42"),
            (2.0, "2"),
            (3.75, "3.75"),
            (75.8, "75.8"),
            (99.97, "100"),
            (2766.6, "2,767"),
            (-1.5, "−1.5"),
        ] {
            assert_eq!(plain(value), text, "{value}");
        }
    }

    #[test]
    fn time_takes_the_unit_that_fits() {
        for (value, en, ko) in [
            (0.29, "0.29 ms", "0.29ms"),
            (455.42, "455 ms", "455ms"),
            (999.7, "1 s", "1초"),
            (8170.0, "8.17 s", "8.17초"),
            (60_000.0, "1 min", "1분"),
            (3_723_000.0, "1 h 2 min", "1시간 2분"),
        ] {
            assert_eq!(millis(value, Language::En), en);
            assert_eq!(millis(value, Language::Ko), ko);
        }
        assert_eq!(span(125.2, Language::En), "2 min 5 s");
        assert_eq!(micros(83.4, Language::En), "83.4 µs");
        assert_eq!(micros(12_500.0, Language::Ko), "12.5ms");
    }

    #[test]
    fn few_is_not_shown_as_none() {
        assert_eq!(share(0.0, Language::En), "0 %");
        assert_eq!(share(0.000_001, Language::En), "< 0.001 %");
        assert_eq!(share(0.0509, Language::Ko), "5.09%");
        assert_eq!(share(0.999_999, Language::En), "99.999 %");
        assert_eq!(share(1.0, Language::En), "100 %");
        assert_eq!(bytes(2_362_232_013.0), "2.2 GiB");
        assert_eq!(bytes(512.0), "512 B");
    }
}
