//! Every store passes the suite that every store must pass. MySQL needs a server, and does so in
//! `external::mysql`.

mod sqlite {
    use crate::common::{fresh, reopen};
    use crate::conformance::store_conformance;

    store_conformance!(fresh, reopen);
}
