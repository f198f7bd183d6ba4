//! What can be wrong with a user's input, without PostgreSQL.
//!
//! Pure: it only describes. `pg::report` turns an [`Error`] into an `ereport`
//! with the SQLSTATE of its [`Kind`].

use std::fmt;

/// The class of an error; each has exactly one SQLSTATE (see `pg::report`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `22023`: a value that is out of range or malformed.
    InvalidParameter,
    /// `42704`: a webhook, event, column or message that does not exist.
    UndefinedObject,
    /// `42710`: a name or URL that is taken.
    DuplicateObject,
    /// `42501`: a role or table privilege is missing.
    InsufficientPrivilege,
    /// `42809`: a view, a system table … where a table is needed.
    WrongObjectType,
    /// `55000`: not possible in the state the server is in.
    NotInPrerequisiteState,
    /// `55P03`: a table is busy for longer than we may wait.
    LockNotAvailable,
}

/// An error for the user: lower case, names the argument and the value, and
/// says in the hint what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Shorthand for the most frequent kind.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// What the system says of a failure, without the ` (os error 2)` that the standard library appends.
pub fn system_text(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(" (os error ") {
        text.truncate(end);
    }
    text
}
