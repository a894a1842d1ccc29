//! An issuer on the network: what it says of itself (OpenID Connect Discovery 1.0), and what it is asked.
//! Calls block, and end within seconds.

use std::fs;
use std::time::Duration;

use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::AuthConfig;

/// The longest answer that is read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Time for one answer of the issuer.
const PATIENCE: Duration = Duration::from_secs(5);

/// An issuer on the network.
pub(crate) struct Issuer {
    agent: ureq::Agent,
    name: String,
}

/// What an issuer says of itself.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    issuer: String,
    /// Where its keys are.
    pub(crate) jwks_uri: String,
    /// Where people sign in.
    pub(crate) authorization_endpoint: Option<String>,
    /// Where a code is exchanged.
    pub(crate) token_endpoint: Option<String>,
    /// How clients say there who they are.
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether it says who it is when it sends somebody back (RFC 9207).
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

impl Issuer {
    /// The issuer of a configuration.
    ///
    /// # Errors
    /// What is wrong with the file of the authorities.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, String> {
        let name = config.issuer.clone().unwrap_or_default();
        Ok(Self { agent: agent(config)?, name })
    }

    /// Its name, as in the `iss` of its tokens.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks it what it says of itself.
    ///
    /// # Errors
    /// Why it is not known.
    pub(crate) fn discover(&self) -> Result<Metadata, String> {
        let name = self.name.trim_end_matches('/');
        let address = format!("{name}/.well-known/openid-configuration");
        let metadata: Metadata = serde_json::from_slice(&self.get(&address)?)
            .map_err(|error| format!("{address}: {error}"))?;
        if metadata.issuer != self.name {
            return Err(format!("{address} is of another issuer, {}", metadata.issuer));
        }
        Ok(metadata)
    }

    /// Reads what is at an address.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn get(&self, address: &str) -> Result<Vec<u8>, String> {
        let failed = |error: ureq::Error| format!("{address}: {error}");
        let mut answer = self.agent.get(address).call().map_err(failed)?;
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(failed)
    }

    /// Sends a form, and returns the status and the body of the answer. It is sent nowhere else than to this
    /// address.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) fn post(
        &self,
        address: &str,
        form: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<(u16, Vec<u8>), String> {
        let failed = |error: ureq::Error| format!("{address}: {error}");
        let request = self.agent.post(address).config();
        let request = request.max_redirects(0).http_status_as_error(false).build();
        let request = match authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        };
        let sent = request.header("Accept", "application/json").send_form(form.iter().copied());
        let mut answer = sent.map_err(failed)?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok((answer.status().as_u16(), body.map_err(failed)?))
    }
}

fn agent(config: &AuthConfig) -> Result<ureq::Agent, String> {
    let roots = match &config.ca_file {
        None => RootCerts::WebPki,
        Some(path) => {
            let failed = |what: String| format!("auth.ca_file {}: {what}", path.display());
            let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
            let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(Result::ok)
                .filter_map(|item| match item {
                    PemItem::Certificate(certificate) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(failed("there is no certificate in it".into()));
            }
            RootCerts::from(certificates)
        }
    };
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(3)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    Ok(agent.into())
}
