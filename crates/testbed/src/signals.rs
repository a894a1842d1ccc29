//! Ctrl-C and its like: noted here, asked for wherever something takes long.

use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{SignalKind, signal};

static GOT: AtomicI32 = AtomicI32::new(0);

/// Exit code for a run that was stopped by hand.
pub const INTERRUPTED: u8 = 130;

/// From here on a signal does not end the program, which has children to stop and results to keep. A
/// second one changes nothing: the end is bounded in time anyway.
pub fn watch() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot listen for signals: {error}");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut listening = Vec::new();
    {
        let _inside = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            listening.push((kind.as_raw_value(), signal(kind).map_err(failed)?));
        }
    }
    std::thread::spawn(move || {
        runtime.block_on(async {
            for (number, mut stream) in listening {
                tokio::spawn(async move {
                    while stream.recv().await.is_some() {
                        GOT.store(number, Ordering::Relaxed);
                    }
                });
            }
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

/// Whether somebody wants the program to end. Never, before [`watch`].
pub fn stopped() -> bool {
    GOT.load(Ordering::Relaxed) != 0
}
