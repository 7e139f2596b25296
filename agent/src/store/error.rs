//! What errors of SQLite mean, and what an operator can do about them.

use std::path::Path;

use rusqlite::ErrorCode;

/// Whether an error means that the file is damaged.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether an error means that the disk accepts nothing.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// What an operator can do about an error, if known.
pub(super) fn hint(error: &rusqlite::Error, path: &Path) -> Option<String> {
    let path = path.display();
    Some(match error.sqlite_error_code()? {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => format!(
            "the store {path} is damaged: it is put away, and a new one takes its place; alerts of the last day are \
             then sent from the alert log, and rules learn anew"
        ),
        ErrorCode::DiskFull => format!("the store {path} cannot grow: free space on its file system"),
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            format!(
                "the store {path} cannot be written: check who may write there, and whether its file system is \
                 mounted read-only"
            )
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            format!("the store {path} is locked by another program: end what else has it open")
        }
        ErrorCode::SystemIoFailure => format!("the store {path} cannot be read or written: check its disk"),
        _ => return None,
    })
}
