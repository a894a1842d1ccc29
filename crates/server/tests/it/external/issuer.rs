//! People of a certified OpenID Connect provider, which runs beside the service.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use boxoffice::config::{AuthMode, Config, Secret};
use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::api::sign_in::{Browser, ORIGIN};
use crate::common::{Call, TestService, get, post, status, until};
use crate::program::Killed;

const AUDIENCE: &str = "https://boxoffice.example";
/// Its tokens are good for a second.
const SHORT: &str = "https://short.example";

/// The provider's process.
struct Provider {
    process: Killed,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Provider {
    fn start() -> Self {
        Self::start_for(None)
    }

    /// One at which people sign in, and are sent back to an address.
    fn start_for(redirect: Option<&str>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut node = Command::new("node");
        node.arg(root.join("scripts/lib/issuer.mjs")).arg(root.join(".tools/oidc-provider"));
        node.args(redirect);
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Killed(node.spawn().expect("node: see scripts/tools"));
        let input = process.0.stdin.take().unwrap();
        let output = BufReader::new(process.0.stdout.take().unwrap());
        let mut provider = Self { process, input, output, url: String::new() };
        provider.url = provider.line();
        provider
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the provider has ended: see scripts/tools oidc-provider");
        line.trim().to_owned()
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
        assert_eq!(self.line(), "done");
    }

    /// A token for somebody, for whoever the audience is.
    async fn token(&self, name: &'static str, audience: &'static str) -> String {
        let url = format!("{}/token", self.url);
        let asked = tokio::task::spawn_blocking(move || {
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", name),
                ("client_secret", name),
                ("resource", audience),
                ("scope", "tickets"),
            ];
            let mut answer = ureq::post(&url).send_form(form).unwrap();
            answer.body_mut().read_json::<Value>().unwrap()
        });
        asked.await.unwrap()["access_token"].as_str().unwrap().to_owned()
    }

    fn configure(&self, config: &mut Config) {
        config.auth.mode = AuthMode::Jwt;
        config.auth.issuer = Some(self.url.clone());
        config.auth.audience = Some(AUDIENCE.into());
    }
}

fn join(token: &str) -> Call {
    let call = post("/api/v1/waiting-queues").json(json!({}));
    call.header("Authorization", format!("Bearer {token}"))
}

async fn id_of(service: &TestService, token: &str) -> i64 {
    // 200 for somebody who has a place already.
    let reply = service.send(join(token)).await;
    let joined = reply.ok(if reply.status == 200 { 200 } else { 201 });
    let place = service.send(status(joined["token"].as_str().unwrap())).await.ok(200);
    place["userId"].as_i64().unwrap()
}

/// A browser at the provider: it keeps cookies, and is sent from place to place.
#[derive(Default)]
struct Visitor {
    cookies: HashMap<String, String>,
}

impl Visitor {
    /// Asks for an address, or sends a form there, and returns where it is sent.
    fn goes(&mut self, address: &str, form: Option<(&str, &str)>) -> String {
        let agent: ureq::Agent = ureq::Agent::config_builder().max_redirects(0).build().into();
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        let cookies = cookies.collect::<Vec<_>>().join("; ");
        let answer = match form {
            None => agent.get(address).header("Cookie", cookies).call(),
            Some(pair) => agent.post(address).header("Cookie", cookies).send_form([pair]),
        };
        let answer = answer.unwrap();
        for cookie in answer.headers().get_all("set-cookie") {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(answer.status(), 303, "{address}");
        let sent = answer.headers()["location"].to_str().unwrap();
        // The provider's own addresses may be paths.
        let (site, _) = address.split_at(address.match_indices('/').nth(2).unwrap().0);
        if sent.starts_with('/') { format!("{site}{sent}") } else { sent.to_owned() }
    }
}

/// What a client library of the provider would do is what the service does: it finds the keys by itself.
#[tokio::test]
async fn people_of_a_real_provider_are_known() {
    let provider = Provider::start();
    let service = TestService::start_with(|config| provider.configure(config)).await;
    let kim = id_of(&service, &provider.token("kim", AUDIENCE).await).await;
    let lee = id_of(&service, &provider.token("lee", AUDIENCE).await).await;
    assert_ne!(kim, lee);
    assert_eq!(id_of(&service, &provider.token("kim", AUDIENCE).await).await, kim);
    let other = provider.token("kim", "https://shop.example").await;
    service.send(join(&other)).await.refused(ErrorCode::PersonTokenInvalid);
    service.finish().await;
}

/// Somebody signs in on the pages, and is who they are by their token; or they would rather not.
#[tokio::test]
async fn people_sign_in_at_a_real_provider() {
    let provider = Provider::start_for(Some(&format!("{ORIGIN}/auth/callback")));
    let service = TestService::start_with(|config| {
        provider.configure(config);
        config.auth.client_id = Some("pages".into());
        config.auth.client_secret = Some(Secret::new("pages"));
        config.auth.public_url = Some(ORIGIN.into());
        config.auth.scopes = vec!["openid".into(), "profile".into()];
    })
    .await;
    let mut fan = Browser::of(&service);
    for (field, back) in [(("no", "1"), "/c/4?signin=denied"), (("name", "kim"), "/c/4")] {
        let asked = fan.goes("/auth/login?return=/c/4").await;
        let sent = tokio::task::spawn_blocking(move || {
            let mut visitor = Visitor::default();
            let form = visitor.goes(&asked, None);
            let resumed = visitor.goes(&form, Some(field));
            visitor.goes(&resumed, None)
        });
        let sent = sent.await.unwrap();
        let path = sent.strip_prefix(ORIGIN).unwrap_or_else(|| panic!("{sent}"));
        assert_eq!(fan.goes(path).await, back);
        // A code is good once, and so is what the browser was sent with.
        assert_eq!(fan.goes(path).await, "/?signin=late");
    }
    let kim = id_of(&service, &provider.token("kim", AUDIENCE).await).await;
    assert_eq!(fan.id().await, kim);
    let me = fan.sends(get("/auth/me")).await.ok(200);
    assert_eq!(me["name"], "Kim");
    service.finish().await;
}

/// A token ends when it says so.
#[tokio::test]
async fn tokens_of_a_real_provider_end() {
    let provider = Provider::start();
    let service = TestService::start_with(|config| {
        provider.configure(config);
        config.auth.audience = Some(SHORT.into());
        config.auth.leeway_seconds = 0;
    })
    .await;
    let token = provider.token("kim", SHORT).await;
    // It is remembered as good, and ends all the same.
    service.send(join(&token)).await.ok(201);
    until("the end of the token", async || {
        (service.send(join(&token)).await.status == 401).then_some(())
    })
    .await;
    service.finish().await;
}

/// The provider signs with a new key while the service runs, and then goes away.
#[tokio::test]
async fn keys_of_a_real_provider_rotate() {
    let mut provider = Provider::start();
    let service = TestService::start_with(|config| provider.configure(config)).await;
    let before = provider.token("kim", AUDIENCE).await;
    let kim = id_of(&service, &before).await;
    provider.tell("rotate second");
    let after = provider.token("kim", AUDIENCE).await;
    service.send(join(&after)).await.refused(ErrorCode::PersonTokenInvalid);
    // The set is read again once a minute at the most; it was read at the start.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(id_of(&service, &after).await, kim);
    assert_eq!(id_of(&service, &before).await, kim);
    let lee = provider.token("lee", AUDIENCE).await;
    provider.process.0.kill().unwrap();
    provider.process.0.wait().unwrap();
    assert_ne!(id_of(&service, &lee).await, kim);
    service.finish().await;
}
