//! An OpenID Connect issuer on loopback, as a test wants it: it serves what it is told to, signs
//! whatever it is given, and gives codes for it.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail like the test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use boxoffice::config::{AuthMode, Config};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Whom the tokens are for.
pub(crate) const AUDIENCE: &str = "boxoffice-tests";

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that signs.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Es(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        let pem = include_str!("fixtures/issuer_rsa.pem");
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Self::Rsa(RsaKeyPair::from_der(&STANDARD.decode(text).unwrap()).unwrap())
    }

    pub(crate) fn es() -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::Es(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap())
    }

    pub(crate) fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Es(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Es(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key, as a set lists it.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let numbers: RsaPublicKeyComponents<Vec<u8>> = key.public().into();
                json!({
                    "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256",
                    "n": base64(numbers.n), "e": base64(numbers.e),
                })
            }
            Self::Es(key) => {
                let point = key.public_key().as_ref();
                json!({
                    "kty": "EC", "crv": "P-256", "kid": id,
                    "x": base64(&point[1..33]), "y": base64(&point[33..]),
                })
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64(key.public_key())})
            }
        }
    }

    /// A token with this head and these claims, whatever they say.
    pub(crate) fn token(&self, head: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", base64(head.to_string()), base64(claims.to_string()));
        let signature = base64(self.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().map_or(0, |(_, length)| length.parse().unwrap())
}

/// The values of a query or of a form, by name; each once.
pub(crate) fn values(text: &str) -> HashMap<String, String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, others @ ..] = rest {
            rest = others;
            bytes.push(match (first, others) {
                (b'%', [high, low, after @ ..]) => {
                    rest = after;
                    u8::from_str_radix(std::str::from_utf8(&[*high, *low]).unwrap(), 16).unwrap()
                }
                (b'+', _) => b' ',
                (other, _) => *other,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let mut found = HashMap::new();
    for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        assert_eq!(found.insert(decoded(name), decoded(value)), None, "{name} comes twice");
    }
    found
}

impl Server {
    /// The status and the body for somebody who brings a code; none where it does not answer.
    fn exchange(&mut self, head: &str, body: &[u8]) -> Option<(u16, String)> {
        let form = values(std::str::from_utf8(body).unwrap());
        let header = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        self.shown = (header.unwrap_or_default(), form.clone());
        let refused = || (400, json!({"error": "invalid_grant"}).to_string());
        match &self.answer {
            TokenAnswer::Text(status, text) => return Some((*status, text.clone())),
            TokenAnswer::Silence => return None,
            TokenAnswer::Honest => {}
        }
        let Some(grant) = self.codes.remove(&form["code"]) else { return Some(refused()) };
        let challenge = base64(Sha256::digest(&form["code_verifier"]));
        if challenge != grant.challenge
            || form["redirect_uri"] != grant.redirect
            || form["grant_type"] != "authorization_code"
        {
            return Some(refused());
        }
        let tokens =
            json!({"access_token": "x", "token_type": "Bearer", "id_token": grant.id_token});
        Some((200, tokens.to_string()))
    }
}

pub(crate) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What an issuer answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The set with these keys.
    Keys(Vec<Value>),
    /// This, with status 200.
    Text(String),
    /// Status 500.
    Failure,
}

/// How it answers somebody who brings a code.
#[derive(Clone)]
pub(crate) enum TokenAnswer {
    /// As it should: once, with the ID token of the code, to whoever can show that it is theirs.
    Honest,
    /// This status and body.
    Text(u16, String),
    /// It says nothing, and does not hang up.
    Silence,
}

/// A code that it gave somebody.
struct Grant {
    id_token: String,
    challenge: String,
    redirect: String,
}

/// What it knows as an authorization server.
struct Server {
    /// What it says of itself beside what all issuers say.
    metadata: Value,
    /// Whether it says it.
    is_away: bool,
    /// Whether it does not even say that.
    hangs: bool,
    /// How often it was asked.
    described: usize,
    codes: HashMap<String, Grant>,
    answer: TokenAnswer,
    /// What the last client with a code showed of itself: its header, and its form.
    shown: (String, HashMap<String, String>),
}

/// An issuer.
pub(crate) struct Issuer {
    address: SocketAddr,
    pub(crate) signer: Signer,
    answer: Arc<Mutex<Answer>>,
    server: Arc<Mutex<Server>>,
    /// How often the set was asked for.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Issuer {
    /// One that signs with this key, called `k1`.
    pub(crate) async fn start(signer: Signer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer::Keys(vec![signer.jwk("k1")])));
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Arc::new(Mutex::new(Server {
            metadata: json!({}),
            is_away: false,
            hangs: false,
            described: 0,
            codes: HashMap::new(),
            answer: TokenAnswer::Honest,
            shown: Default::default(),
        }));
        let served = (answer.clone(), asked.clone(), server.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, asked, server) = served.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head);
                    let (status, body) = if head.starts_with("GET /.well-known/openid-conf") {
                        let issuer = format!("http://{address}");
                        let hangs = {
                            let mut server = server.lock().unwrap();
                            server.described += 1;
                            server.hangs
                        };
                        if hangs {
                            let _ = stream.read_u8().await;
                            return;
                        }
                        let server = server.lock().unwrap();
                        let mut document = json!({
                            "issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
                            "authorization_endpoint": format!("{issuer}/authorize?tenant=1"),
                            "token_endpoint": format!("{issuer}/token"),
                        });
                        for (name, value) in server.metadata.as_object().unwrap() {
                            document[name] = value.clone();
                        }
                        match server.is_away {
                            false => ("200 OK".to_owned(), document.to_string()),
                            true => ("503 Oh".to_owned(), String::new()),
                        }
                    } else if head.starts_with("POST /token ") {
                        let mut body = vec![0; content_length(&head)];
                        stream.read_exact(&mut body).await.unwrap();
                        let answered = server.lock().unwrap().exchange(&head, &body);
                        match answered {
                            Some((status, body)) => (format!("{status} Hm"), body),
                            None => {
                                let _ = stream.read_u8().await;
                                return;
                            }
                        }
                    } else {
                        asked.fetch_add(1, Ordering::SeqCst);
                        match answer.lock().unwrap().clone() {
                            Answer::Keys(keys) => {
                                ("200 OK".to_owned(), json!({"keys": keys}).to_string())
                            }
                            Answer::Text(text) => ("200 OK".to_owned(), text),
                            Answer::Failure => ("500 Oh".to_owned(), String::new()),
                        }
                    };
                    let text = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        Self { address, signer, answer, server, asked }
    }

    /// Says this of itself beside what all issuers say.
    pub(crate) fn says(&self, metadata: Value) {
        self.server.lock().unwrap().metadata = metadata;
    }

    /// Says nothing of itself any more, or says it again.
    pub(crate) fn is_away(&self, is_away: bool) {
        self.server.lock().unwrap().is_away = is_away;
    }

    /// Hangs from now on where it is asked what it is.
    pub(crate) fn hangs(&self) {
        self.server.lock().unwrap().hangs = true;
    }

    /// How often it was asked what it is.
    pub(crate) fn described(&self) -> usize {
        self.server.lock().unwrap().described
    }

    /// Answers codes so from now on.
    pub(crate) fn answers_codes(&self, answer: TokenAnswer) {
        self.server.lock().unwrap().answer = answer;
    }

    /// What the last client with a code showed of itself: its header, and its form.
    pub(crate) fn shown(&self) -> (String, HashMap<String, String>) {
        self.server.lock().unwrap().shown.clone()
    }

    /// Gives a browser that was sent here a code, for a sign-in with this ID token.
    pub(crate) fn grants(&self, code: &str, asked: &HashMap<String, String>, id_token: String) {
        assert_eq!(asked["code_challenge_method"], "S256");
        let (challenge, redirect) =
            (asked["code_challenge"].clone(), asked["redirect_uri"].clone());
        let grant = Grant { id_token, challenge, redirect };
        self.server.lock().unwrap().codes.insert(code.to_owned(), grant);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers so from now on.
    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Has a service know the people of this issuer.
    pub(crate) fn configure(&self, config: &mut Config) {
        config.auth.mode = AuthMode::Jwt;
        config.auth.issuer = Some(self.url());
        config.auth.audience = Some(AUDIENCE.into());
    }

    /// The claims of a good token for somebody.
    pub(crate) fn claims(&self, sub: &str) -> Value {
        let now = now_seconds();
        json!({"iss": self.url(), "aud": AUDIENCE, "sub": sub, "iat": now, "exp": now + 600})
    }

    pub(crate) fn head(&self) -> Value {
        json!({"alg": self.signer.algorithm(), "typ": "JWT", "kid": "k1"})
    }

    /// A token with these claims.
    pub(crate) fn signed(&self, claims: &Value) -> String {
        self.signer.token(&self.head(), claims)
    }

    /// A good token for somebody.
    pub(crate) fn token(&self, sub: &str) -> String {
        self.signed(&self.claims(sub))
    }
}
