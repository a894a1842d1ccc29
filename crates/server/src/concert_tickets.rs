//! Concert tickets: what a buyer shows at the venue, as a signed text (JSON Web Token, RFC 7519, signed with
//! Ed25519, RFC 8037) and as a QR code.
//!
//! A concert ticket says which reservation it is of, and nothing of who bought it. It is signed anew each time
//! that it is asked for, with the key of that moment, so nothing of it is kept. The service checks it by any key
//! that it ever had, unless that was withdrawn: what was printed weeks ago stays good while keys change.
//!
//! What does not belong here: whether the reservation is still paid; see `http::concert_tickets`.

use std::fmt::Write;

use boxoffice_domain::time::Timestamp;
use qrcode::types::{Color, QrError};
use qrcode::{EcLevel, QrCode};
use serde::{Deserialize, Serialize};

use crate::signing::{Key, SignedText};

/// What a concert ticket says to be in its header, so that it passes for nothing else that is signed with the
/// same key, and nothing else for it.
const TICKET_TYPE: &str = "boxoffice-ticket+jwt";
/// Whom it is for, for those who check it with a library.
const AUDIENCE: &str = "boxoffice-ticket";
/// The longest code that is looked at, in bytes.
pub const CODE_BYTES_MAX: usize = 2_048;
/// How long after the beginning of its session a ticket is good, in seconds: nobody says how long a concert
/// takes.
pub const GOOD_AFTER_SECONDS: i64 = 86_400;
/// Seats that a code names; of more it says how many. So it stays small enough to be read off a phone.
const SEATS_MAX: usize = 12;
/// Characters of the name of a seat in a code.
const SEAT_CHARS_MAX: usize = 24;

/// What a concert ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Always the same.
    aud: String,
    /// The reservation.
    pub reservation: i64,
    /// The payment that paid for it.
    pub payment: i64,
    /// The concert.
    pub concert: i64,
    /// The session.
    pub session: i64,
    /// The seats as people know them.
    pub seats: Vec<String>,
    /// How many more seats there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u32,
    /// When it was signed, in seconds since 1970.
    pub iat: i64,
    /// Until when it is good, in seconds since 1970, as far as was known then.
    pub exp: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a concert ticket is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The reservation.
    pub reservation: i64,
    /// Its payment.
    pub payment: i64,
    /// The concert.
    pub concert: i64,
    /// The session.
    pub session: i64,
    /// When that begins.
    pub begins: Timestamp,
    /// All its seats as people know them.
    pub seats: Vec<String>,
}

impl Ticket {
    /// What it says when it is signed at `now`.
    pub fn claims(&self, now: Timestamp) -> Claims {
        let (seats, more) = named(&self.seats);
        Claims {
            aud: AUDIENCE.to_owned(),
            reservation: self.reservation,
            payment: self.payment,
            concert: self.concert,
            session: self.session,
            seats,
            more,
            iat: now.0.div_euclid(1_000),
            exp: ends(self.begins),
        }
    }

    /// Whether claims are those of this ticket, whenever they were signed.
    pub fn has(&self, claims: &Claims) -> bool {
        let now = Timestamp(claims.iat.saturating_mul(1_000));
        // A session may be moved, and its tickets stay good.
        *claims == Claims { exp: claims.exp, ..self.claims(now) }
    }
}

/// Until when a ticket of a session that begins then is good, in seconds since 1970.
pub fn ends(begins: Timestamp) -> i64 {
    begins.0.div_euclid(1_000).saturating_add(GOOD_AFTER_SECONDS)
}

/// The seats that a code names, and how many it does not.
fn named(seats: &[String]) -> (Vec<String>, u32) {
    let short = |seat: &String| {
        let beyond = seat.chars().count().saturating_sub(SEAT_CHARS_MAX);
        if beyond == 0 {
            return seat.clone();
        }
        // The end tells them apart.
        std::iter::once('\u{2026}').chain(seat.chars().skip(beyond + 1)).collect()
    };
    let more = seats.len().saturating_sub(SEATS_MAX);
    (seats.iter().take(SEATS_MAX).map(short).collect(), u32::try_from(more).unwrap_or(u32::MAX))
}

/// Signs a ticket.
pub fn sign(key: &Key, claims: &Claims) -> String {
    key.sign_text(TICKET_TYPE, claims)
}

/// What a reader knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its public half.
    Good([u8; 32]),
    /// Nothing that it signed counts any more.
    Withdrawn,
}

/// Why a text is no ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// It is no concert ticket at all.
    Malformed,
    /// Nobody here knows the key of this id.
    KeyUnknown(String),
    /// The key of this id was withdrawn.
    KeyWithdrawn(String),
    /// It was changed, or somebody made it up.
    SignatureInvalid,
}

/// What a code says, where its signature is that of a key that `find` knows. Nothing is said of whether it is
/// over. White space around it does no harm: scanners add some.
///
/// # Errors
/// Why it is no ticket.
pub fn read(code: &str, find: impl Fn(&str) -> Option<Known>) -> Result<Claims, NoTicket> {
    let code = code.trim();
    if code.len() > CODE_BYTES_MAX {
        return Err(NoTicket::Malformed);
    }
    let text = SignedText::read(code, TICKET_TYPE).ok_or(NoTicket::Malformed)?;
    let key = match find(&text.key_id) {
        None => return Err(NoTicket::KeyUnknown(text.key_id)),
        Some(Known::Withdrawn) => return Err(NoTicket::KeyWithdrawn(text.key_id)),
        Some(Known::Good(key)) => key,
    };
    if !text.is_signed_with(&key) {
        return Err(NoTicket::SignatureInvalid);
    }
    let claims: Claims = serde_json::from_slice(&text.claims).map_err(|_| NoTicket::Malformed)?;
    if claims.aud == AUDIENCE { Ok(claims) } else { Err(NoTicket::Malformed) }
}

/// A QR code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// How many modules it is wide and high, without the quiet zone of four around it.
    pub size: usize,
    /// The dark modules as the path of an SVG, in which a module has one unit.
    pub path: String,
}

impl Picture {
    /// A code as a picture.
    ///
    /// # Errors
    /// Where the code is too long for one.
    pub fn of(code: &str) -> Result<Self, QrError> {
        let qr = QrCode::with_error_correction_level(code, EcLevel::M)?;
        let size = qr.width();
        let mut path = String::new();
        for (y, row) in qr.to_colors().chunks(size).enumerate() {
            let mut x = 0;
            for run in row.chunk_by(|one, other| one == other) {
                let length = run.len();
                if run[0] == Color::Dark {
                    // Writing to a string does not fail.
                    let _ = write!(path, "M{x} {y}h{length}v1h-{length}z");
                }
                x += length;
            }
        }
        Ok(Self { size, path })
    }
}

#[cfg(test)]
mod tests {
    use boxoffice_backends::store::{Kept, MemoryStore, Store};
    use proptest::prelude::*;

    use super::*;
    use crate::passes::Passes;
    use crate::signing::ServiceKeys;

    fn keys() -> ServiceKeys {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::Memory(MemoryStore::open(&Kept::default()));
            ServiceKeys::open(&store).await.unwrap()
        })
    }

    fn known(keys: &ServiceKeys) -> impl Fn(&str) -> Option<Known> {
        let public = keys.public();
        move |id| public.iter().find(|key| key.id == id).map(|key| Known::Good(key.bytes))
    }

    fn ticket(seats: &[&str]) -> Ticket {
        Ticket {
            reservation: 17,
            payment: 9,
            concert: 4,
            session: 15,
            begins: Timestamp(1_800_000_000_500),
            seats: seats.iter().map(|seat| (*seat).to_owned()).collect(),
        }
    }

    const NOW: Timestamp = Timestamp(1_790_000_000_999);

    #[test]
    fn what_is_signed_is_read_back() {
        let keys = keys();
        let claims = ticket(&["7", "8"]).claims(NOW);
        assert_eq!((claims.iat, claims.exp), (1_790_000_000, 1_800_086_400));
        let code = sign(&keys.of(NOW), &claims);
        for text in [code.clone(), format!(" {code}\r\n")] {
            assert_eq!(read(&text, known(&keys)), Ok(claims.clone()));
        }
        assert!(ticket(&["7", "8"]).has(&claims));
        let moved = Ticket { begins: Timestamp(1_900_000_000_000), ..ticket(&["7", "8"]) };
        assert!(moved.has(&claims), "the session was moved");
        for other in [
            ticket(&["7"]),
            ticket(&["8", "7"]),
            Ticket { reservation: 18, ..ticket(&["7", "8"]) },
            Ticket { payment: 18, ..ticket(&["7", "8"]) },
            Ticket { concert: 18, ..ticket(&["7", "8"]) },
            Ticket { session: 18, ..ticket(&["7", "8"]) },
        ] {
            assert!(!other.has(&claims), "{other:?}");
        }
    }

    #[test]
    fn a_ticket_is_no_pass_and_nothing_else_is_a_ticket() {
        let keys = keys();
        let key = keys.of(NOW);
        let claims = ticket(&["7"]).claims(NOW);
        let code = sign(&key, &claims);
        assert!(keys.signer_of(&code).is_none(), "it begins as no pass does");
        assert_eq!(Passes::new("boxoffice").read(&keys, &code), None);
        // The same claims under the header of a pass, or of a signed head.
        for kind in ["JWT", "boxoffice-head+jwt", ""] {
            let other = key.sign_text(kind, &claims);
            assert_eq!(read(&other, known(&keys)), Err(NoTicket::Malformed), "{kind}");
        }
        let aimed = key.sign_text(TICKET_TYPE, &Claims { aud: "main".into(), ..claims.clone() });
        assert_eq!(read(&aimed, known(&keys)), Err(NoTicket::Malformed));
        let more = key.sign_text(TICKET_TYPE, &serde_json::json!({"aud": AUDIENCE}));
        assert_eq!(read(&more, known(&keys)), Err(NoTicket::Malformed));
        let long = format!("{code}{}", "A".repeat(CODE_BYTES_MAX));
        for text in ["", ".", "..", "a.b.c", "\u{1f3ab}", &long, &code[..code.len() - 1]] {
            assert!(read(text, known(&keys)).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_decide() {
        let (keys, others) = (keys(), self::keys());
        let key = keys.of(NOW);
        let id = key.id().to_string();
        let code = sign(&key, &ticket(&["7"]).claims(NOW));
        assert_eq!(read(&code, known(&others)), Err(NoTicket::KeyUnknown(id.clone())));
        let withdrawn = |_: &str| Some(Known::Withdrawn);
        assert_eq!(read(&code, withdrawn), Err(NoTicket::KeyWithdrawn(id)));
        let wrong = Known::Good(others.public()[0].bytes);
        assert_eq!(read(&code, |_| Some(wrong)), Err(NoTicket::SignatureInvalid));
    }

    #[test]
    fn a_code_is_bounded_whatever_was_bought() {
        let keys = keys();
        let names: Vec<String> =
            (0..1_000).map(|n| format!("{n}{}", "\u{1f3ab}".repeat(50))).collect();
        let big = i64::MAX / 1_000;
        let ticket = Ticket {
            reservation: big,
            payment: big,
            concert: big,
            session: big,
            begins: Timestamp(i64::MAX),
            seats: names,
        };
        let claims = ticket.claims(Timestamp(i64::MAX));
        assert_eq!((claims.seats.len(), claims.more), (SEATS_MAX, 988));
        let whole = "x".repeat(SEAT_CHARS_MAX);
        let (short, _) = named(&[whole.clone(), format!("{whole}-17")]);
        assert_eq!(short, [whole.clone(), format!("\u{2026}{}-17", &whole[4..])]);
        assert!(ticket.has(&claims));
        let code = sign(&keys.of(NOW), &claims);
        assert!(code.len() <= CODE_BYTES_MAX, "{} bytes", code.len());
        assert_eq!(read(&code, known(&keys)), Ok(claims));
        assert!(Picture::of(&code).is_ok());
    }

    #[test]
    fn a_usual_code_can_be_read_off_a_phone() {
        let claims =
            Ticket { reservation: 1_234_567, payment: 1_234_567, ..ticket(&["1201", "1202"]) };
        let code = sign(&keys().of(NOW), &claims.claims(NOW));
        let picture = Picture::of(&code).unwrap();
        assert!(picture.size <= 81, "{} modules for {} bytes", picture.size, code.len());
        // The finder pattern in the corner.
        assert!(picture.path.starts_with("M0 0h7v1h-7z"), "{}", picture.path);
        assert!(Picture::of(&"x".repeat(5_000)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_change_is_found_out(at: prop::sample::Index, byte in 33_u8..127) {
            let keys = keys();
            let code = sign(&keys.of(NOW), &ticket(&["7"]).claims(NOW));
            // The last character has bits that no signature has.
            let at = at.index(code.len() - 1);
            let mut changed = code.clone().into_bytes();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(read(&changed, known(&keys)).is_ok(), changed == code, "{}", changed);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,300}") {
            prop_assert!(read(&text, |_| Some(Known::Good([0; 32]))).is_err());
        }
    }
}
