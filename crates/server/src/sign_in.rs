//! Signing in on the fan's pages: the authorization code flow of OpenID Connect with PKCE (RFC 7636).
//!
//! A browser is sent to the issuer with a cookie that binds what comes back to it, and gets a cookie that
//! says who it is for some hours. Nothing of it is stored here: the cookies are sealed with keys that all
//! instances have. What the ID token of the issuer says is for `people` to check.
//!
//! What does not belong here: HTTP towards browsers; see `http::sign_in`.

mod cookies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use base64_simd::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use boxoffice_domain::time::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

pub use self::cookies::{Cookies, Identity, Login};
use crate::config::{AuthConfig, Secret};
use crate::people::issuer::{Issuer, Metadata};
use crate::people::{People, SignedIn, Stranger};
use crate::tickets::SigningKeys;

/// Where the issuer sends people back to.
pub const CALLBACK: &str = "/auth/callback";
/// Time between being sent to the issuer and coming back.
pub const LOGIN_SECONDS: i64 = 600;

/// What the issuer says of itself is read again after this time,
const AGE_MAX: Duration = Duration::from_secs(3_600);
/// and this long after a try that failed.
const RETRY: Duration = Duration::from_secs(5);
/// So many codes are exchanged at once: each takes a thread while the issuer thinks,
const EXCHANGES_MAX: usize = 64;
/// and those that come meanwhile wait so long.
const TURN: Duration = Duration::from_secs(5);

/// What does not stand for itself in a query and in a form (RFC 3986).
pub(crate) const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why somebody is not signed in.
#[derive(Debug)]
pub enum Refused {
    /// The issuer, or the store, cannot be asked at the moment.
    Away(String),
    /// The issuer does not say who it is, or says it of another sign-in.
    Wrong(String),
}

/// How people sign in at the issuer.
pub struct SignIn {
    issuer: Arc<Issuer>,
    client: String,
    secret: Option<Secret>,
    origin: String,
    scopes: String,
    hours_ms: i64,
    cookies: Cookies,
    known: ArcSwapOption<Known>,
    /// When the issuer was asked for that last.
    asked: Mutex<Option<Instant>>,
    exchanges: Arc<Semaphore>,
}

/// What is known of the issuer.
struct Known {
    authorization: String,
    token: String,
    /// Whether the client's secret goes into the form, and not into a header.
    secret_in_form: bool,
    /// Whether it says who it is when it sends somebody back.
    says_who: bool,
    at: Instant,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").field("client", &self.client).finish_non_exhaustive()
    }
}

impl SignIn {
    /// As it is configured; `None` where people cannot sign in here.
    ///
    /// # Errors
    /// What is wrong with the file of the authorities.
    pub fn new(config: &AuthConfig, tickets: &SigningKeys) -> Result<Option<Self>, String> {
        let (Some(client), Some(origin)) = (&config.client_id, &config.public_url) else {
            return Ok(None);
        };
        let issuer = Issuer::new(config)?;
        Ok(Some(Self {
            cookies: Cookies::new(tickets, issuer.name(), client),
            issuer: Arc::new(issuer),
            client: client.clone(),
            secret: config.client_secret.clone(),
            origin: origin.clone(),
            scopes: config.scopes.join(" "),
            hours_ms: i64::from(config.session_hours) * 3_600_000,
            known: ArcSwapOption::empty(),
            asked: Mutex::default(),
            exchanges: Arc::new(Semaphore::new(EXCHANGES_MAX)),
        }))
    }

    /// The origin of the pages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Seals the cookies, and opens them.
    pub const fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// Begins to sign somebody in who is to come back to the path `back`: where to send the browser to, and
    /// what it keeps meanwhile. With `anew` the issuer asks who it is, whoever was signed in there.
    ///
    /// # Errors
    /// [`Refused::Away`].
    pub async fn begin(
        &self,
        back: &str,
        anew: bool,
        now: Timestamp,
    ) -> Result<(String, Login), Refused> {
        let known = self.known().await?;
        let login = Login {
            state: random(),
            nonce: random(),
            // 43 characters, the fewest that a verifier may have.
            verifier: random(),
            back: back.to_owned(),
            until: now.0 + LOGIN_SECONDS * 1_000,
        };
        let challenge = BASE64.encode_to_string(Sha256::digest(&login.verifier));
        let mut address = known.authorization.clone();
        address.push(if address.contains('?') { '&' } else { '?' });
        address.push_str("response_type=code");
        for (name, value) in [
            ("client_id", self.client.as_str()),
            ("redirect_uri", &self.redirect()),
            ("scope", &self.scopes),
            ("state", &login.state),
            ("nonce", &login.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ] {
            address.push_str(&format!("&{name}="));
            address.extend(utf8_percent_encode(value, RESERVED));
        }
        if anew {
            address.push_str("&prompt=login");
        }
        Ok((address, login))
    }

    /// Ends to sign somebody in who came back with a code: who it is, and until when. The code comes from an
    /// issuer that says that it is `from`, if it says so.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn finish(
        &self,
        people: &People,
        code: &str,
        from: Option<&str>,
        login: &Login,
        now: Timestamp,
    ) -> Result<Identity, Refused> {
        let known = self.known().await?;
        // Another one would be shown our code by mistake, or have it brought here (RFC 9207).
        if from.map_or(known.says_who, |from| from != self.issuer.name()) {
            return Err(Refused::Wrong("the code comes from another issuer (iss)".into()));
        }
        let token = self.exchange(known, code.to_owned(), login.verifier.clone()).await?;
        let found = people.signed_in(&token, &self.client, &login.nonce, now).await;
        let SignedIn { user, name } = found.map_err(|why| match why {
            Stranger::Invalid(why) => Refused::Wrong(format!("the ID token: {why}")),
            Stranger::NoKeys => Refused::Away("its keys have not been read yet".into()),
            Stranger::Store(fault) => Refused::Away(fault.to_string()),
        })?;
        Ok(Identity { user: user.get(), name, until: now.0.saturating_add(self.hours_ms) })
    }

    fn redirect(&self) -> String {
        format!("{}{CALLBACK}", self.origin)
    }

    /// What the issuer says of itself. It is asked where that is not known or has grown old; what was known
    /// stands as long as it does not answer.
    async fn known(&self) -> Result<Arc<Known>, Refused> {
        let is_fresh = |known: &Arc<Known>| known.at.elapsed() < AGE_MAX;
        if let Some(known) = self.known.load_full().filter(is_fresh) {
            return Ok(known);
        }
        // What was known is good enough while somebody else asks.
        let before = self.known.load_full();
        let asking = self.asked.try_lock();
        let mut asked = match (asking, before) {
            (Ok(asked), _) => asked,
            (Err(_), Some(before)) => return Ok(before),
            (Err(_), None) => self.asked.lock().await,
        };
        let before = self.known.load_full();
        if let Some(known) = before.clone().filter(is_fresh) {
            return Ok(known);
        }
        let away = || Refused::Away("it did not say a moment ago where people sign in".into());
        if asked.is_some_and(|at| at.elapsed() < RETRY) {
            return before.ok_or_else(away);
        }
        let issuer = self.issuer.clone();
        let metadata = tokio::task::spawn_blocking(move || issuer.discover()).await;
        // From its end on: it may have taken as long as that, and others have waited for it.
        *asked = Some(Instant::now());
        let metadata = metadata.unwrap_or_else(|error| Err(error.to_string()));
        match metadata.and_then(|metadata| Known::new(metadata, self.secret.is_some())) {
            Ok(known) => {
                let known = Arc::new(known);
                self.known.store(Some(known.clone()));
                Ok(known)
            }
            Err(why) => before.ok_or(Refused::Away(why)),
        }
    }

    /// Exchanges a code for an ID token.
    async fn exchange(
        &self,
        known: Arc<Known>,
        code: String,
        verifier: String,
    ) -> Result<String, Refused> {
        /// What it answers. The access token is of no use here.
        #[derive(Deserialize)]
        struct Answer {
            id_token: Option<String>,
            error: Option<String>,
        }
        let turn = tokio::time::timeout(TURN, self.exchanges.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refused::Away("too many people sign in at once".into()));
        };
        let (issuer, redirect) = (self.issuer.clone(), self.redirect());
        let (client, secret) = (self.client.clone(), self.secret.clone());
        let sent = tokio::task::spawn_blocking(move || {
            // As long as the thread is at work, whoever has gone away meanwhile.
            let _turn = turn;
            let mut form = vec![
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", &redirect),
                ("code_verifier", &verifier),
            ];
            let authorization = match &secret {
                Some(secret) if !known.secret_in_form => Some(basic(&client, secret)),
                Some(secret) => {
                    form.extend([
                        ("client_id", client.as_str()),
                        ("client_secret", secret.expose()),
                    ]);
                    None
                }
                None => {
                    form.push(("client_id", &client));
                    None
                }
            };
            issuer.post(&known.token, &form, authorization.as_deref())
        });
        let sent = sent.await.unwrap_or_else(|error| Err(error.to_string()));
        let (status, body) = sent.map_err(Refused::Away)?;
        if status >= 500 || status == 429 {
            return Err(Refused::Away(format!("it answers a code with status {status}")));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| Refused::Wrong(format!("its answer to a code: {error}")))?;
        match (status, answer.id_token, answer.error) {
            (200, Some(token), _) => Ok(token),
            (200, None, _) => Err(Refused::Wrong("it gives no ID token".into())),
            (_, _, error) => {
                let error = error.unwrap_or_default();
                Err(Refused::Wrong(format!("it refuses the code with status {status}: {error:?}")))
            }
        }
    }
}

impl Known {
    fn new(metadata: Metadata, has_secret: bool) -> Result<Self, String> {
        let address = |what: &str, address: Option<String>| {
            let is_one = |address: &String| {
                ["https://", "http://"].iter().any(|scheme| address.starts_with(scheme))
                    && address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
            };
            address.filter(is_one).ok_or_else(|| format!("it says no {what} of use"))
        };
        // Without a word from it, it takes a header (OpenID Connect Discovery 1.0).
        let methods = metadata.token_endpoint_auth_methods_supported;
        let takes = |method: &str| methods.iter().flatten().any(|it| it == method);
        let in_header = methods.is_none() || takes("client_secret_basic");
        if has_secret && !in_header && !takes("client_secret_post") {
            return Err("it takes no client secret".into());
        }
        Ok(Self {
            authorization: address("authorization_endpoint", metadata.authorization_endpoint)?,
            token: address("token_endpoint", metadata.token_endpoint)?,
            secret_in_form: !in_header,
            says_who: metadata.authorization_response_iss_parameter_supported,
            at: Instant::now(),
        })
    }
}

/// A client and its secret for a header (RFC 6749, 2.3.1).
fn basic(client: &str, secret: &Secret) -> String {
    let [client, secret] = [client, secret.expose()].map(|it| utf8_percent_encode(it, RESERVED));
    let pair = format!("{client}:{secret}");
    format!("Basic {}", STANDARD.encode_to_string(pair))
}

/// 244 bits that nobody can foresee, as 43 characters.
fn random() -> String {
    let halves = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes);
    BASE64.encode_to_string(halves.concat())
}
