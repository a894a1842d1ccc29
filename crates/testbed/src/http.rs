//! Single requests, for operating a service. Load is made elsewhere.

use std::time::Duration;

use serde_json::Value;
use ureq::http::Request;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body as text.
    pub body: String,
    /// Names in lower case, and what they say.
    pub headers: Vec<(String, String)>,
}

impl Reply {
    /// Returns what a header says, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON; null where there is none.
    pub fn json(&self) -> Result<Value, String> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.body)
            .map_err(|error| format!("the answer is not JSON: {error}: {}", clip(&self.body)))
    }
}

/// Sends one request on a connection of its own.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
    patience: Duration,
) -> Result<Reply, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = if let Some(body) = body {
        let request = request.header("Content-Type", "application/json").body(body.to_string());
        agent.run(request.map_err(|error| error.to_string())?)
    } else {
        agent.run(request.body(()).map_err(|error| error.to_string())?)
    };
    let mut answer = answer.map_err(|error| error.to_string())?;
    // Who asks for a packed answer gets one, which is no text.
    let bytes = answer
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_vec()
        .map_err(|error| error.to_string())?;
    let headers = answer.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    Ok(Reply {
        status: answer.status().as_u16(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Asks for a page, with little patience.
pub fn get(url: &str) -> Result<Reply, String> {
    request("GET", url, &[], None, Duration::from_secs(3))
}

/// The beginning of a text, for a message.
pub fn clip(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Returns the sum of a metric in the text of `/metrics`, over those of its labels that contain `label`;
/// none where there is none.
pub fn metric_of(text: &str, name: &str, label: &str) -> Option<f64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => match rest.rsplit_once('}') {
                Some(parts) => parts,
                None => continue,
            },
            None if rest.starts_with(' ') => ("", rest),
            None => continue,
        };
        let value = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        if let (true, Some(value)) = (labels.contains(label), value) {
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# HELP a A\na_total{x=\"1\",y=\"b\"} 2\na_total{x=\"2\",y=\"b\"} 3 1700\n\
                    a_total_more 7\nb 1.5\na_total{x=\"1} 2\",y=\"c\"} 4\n";
        for (name, label, expected) in [
            ("a_total", "", Some(9.0)),
            ("a_total", "x=\"1\"", Some(2.0)),
            ("a_total", "y=\"b\"", Some(5.0)),
            ("a_total", "nobody", None),
            ("b", "", Some(1.5)),
            ("c", "", None),
        ] {
            assert_eq!(metric_of(text, name, label), expected, "{name} {label}");
        }
    }
}
