//! Every store passes the suite that every store must pass. MySQL needs a server, and does so in
//! `external::mysql`.

mod sqlite {
    use crate::common::{fresh, reopen};
    use crate::conformance::store_conformance;

    store_conformance!(fresh, reopen);
}

mod memory {
    use boxoffice_backends::store::{Kept, MemoryStore, Store};

    use crate::conformance::store_conformance;

    async fn fresh() -> (Store, Kept) {
        let kept = Kept::default();
        (Store::Memory(MemoryStore::open(&kept)), kept)
    }

    async fn reopen(store: Store, kept: &Kept) -> Store {
        store.close().await;
        drop(store);
        Store::Memory(MemoryStore::open(kept))
    }

    store_conformance!(fresh, reopen);
}
