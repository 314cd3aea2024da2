//! Metrics as a scraper sees them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use kube::Client;

/// One scrape, in the Prometheus or `OpenMetrics` text format.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Scrapes `http://…` or `https://…` (any certificate).
///
/// # Errors
/// If it does not answer 2xx.
pub async fn scrape(url: &str) -> anyhow::Result<Metrics> {
    Ok(Metrics::parse(&get_text(url).await?))
}

impl Metrics {
    /// Reads the text format. Comments and lines that are no samples are skipped.
    pub fn parse(text: &str) -> Self {
        Self {
            samples: text.lines().filter_map(Sample::parse).collect(),
        }
    }

    /// The series of `name` that carry these labels, added up; `None` if there are none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples
            .iter()
            .filter(|sample| sample.name == name && sample.carries(labels))
            .map(|sample| sample.value)
            .reduce(|sum, value| sum + value)
    }

    /// All series of `name`, added up; 0 if there are none.
    pub fn sum(&self, name: &str) -> f64 {
        self.value(name, &[]).unwrap_or(0.0)
    }

    /// Every value that `label` has in the series of `name`.
    pub fn label_values(&self, name: &str, label: &str) -> Vec<&str> {
        let of_name = self.samples.iter().filter(|sample| sample.name == name);
        of_name
            .filter_map(|sample| sample.labels.get(label))
            .map(String::as_str)
            .collect()
    }

    /// How many requests were sent to the webhook of this name (`webhooks[].name`), if this
    /// is a scrape of an API server: the witness for validating webhooks, which leave no
    /// mark in the audit log.
    pub fn webhook_requests(&self, webhook: &str) -> f64 {
        let name = "apiserver_admission_webhook_request_total";
        self.value(name, &[("name", webhook)]).unwrap_or(0.0)
    }
}

impl Sample {
    /// `name{label="value",…} value [timestamp] [# exemplar]`
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let end = line.find(['{', ' ', '\t'])?;
        let (name, rest) = line.split_at(end);
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        // Rust reads NaN, +Inf and -Inf as Prometheus writes them.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }

    fn carries(&self, wanted: &[(&str, &str)]) -> bool {
        wanted
            .iter()
            .all(|(key, value)| self.labels.get(*key).is_some_and(|had| had == value))
    }
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        rest = loop {
            match chars.next()? {
                (at, '"') => break &after[at + 1..],
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, plain) => value.push(plain),
            }
        };
        labels.insert(key.trim().to_owned(), value);
    }
}

/// GET of any URL on this machine, as text.
pub(crate) async fn get_text(url: &str) -> anyhow::Result<String> {
    let ask = async {
        let uri: http::Uri = url.parse()?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("not a full URL")
        };
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(plain_client(&format!("{scheme}://{authority}"))?
            .request_text(request)
            .await?)
    };
    ask.await.with_context(|| format!("GET {url}"))
}

/// A client without an identity that trusts any certificate: for loopback only.
pub(crate) fn plain_client(base: &str) -> anyhow::Result<Client> {
    let mut config = kube::Config::new(base.parse()?);
    config.accept_invalid_certs = true;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_scrapers_read() {
        let metrics = Metrics::parse(
            "# HELP a Help {text} 1\n# TYPE a counter\n\
             a_total{code=\"200\",path=\"/a b,c}\\\"\\n\"} 3 1700000000\n\
             a_total{code=\"500\"} 1.5e1 # {trace=\"1\"} 1\n\
             plain 7\nbucket{le=\"+Inf\"} +Inf\n# EOF\n",
        );
        assert_eq!(metrics.value("a_total", &[("code", "200")]), Some(3.0));
        assert_eq!(metrics.value("a_total", &[("path", "/a b,c}\"\n")]), Some(3.0));
        assert_eq!(metrics.value("a_total", &[("code", "404")]), None);
        let sums = ["a_total", "plain", "absent"].map(|name| metrics.sum(name));
        assert_eq!(sums.map(f64::to_bits), [18.0, 7.0, 0.0].map(f64::to_bits));
        assert_eq!(metrics.value("bucket", &[]), Some(f64::INFINITY));
        assert_eq!(metrics.label_values("a_total", "code"), ["200", "500"]);
    }
}
