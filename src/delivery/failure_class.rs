//! What kind of failure ended a call: the columns of failures in `webhook.activity`.

use std::io::ErrorKind;

use ureq::Error;

use super::call::Verdict;
use super::resolver::Refused;
use super::tls::tls_error;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureClass {
    /// The host name has no address, nobody listens, or the connection broke.
    Connect,
    Tls,
    Timeout,
    Http4xx,
    Http5xx,
    /// Another status code, an answer that is not HTTP, a refused address, a message that cannot be sent.
    #[default]
    Other,
}

/// Of an error before or while the answer is read.
pub(super) fn of_error(error: &Error) -> FailureClass {
    match error {
        Error::Timeout(_) => FailureClass::Timeout,
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => FailureClass::Timeout,
        Error::Io(error) if tls_error(error).is_some() => FailureClass::Tls,
        Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed => FailureClass::Connect,
        Error::Other(other) => other
            .downcast_ref::<Refused>()
            .map_or(FailureClass::Other, |refused| refused.class),
        _ => FailureClass::Other,
    }
}

/// Of a call that ended with this verdict; `None`: it was delivered.
pub(super) fn of_outcome(
    verdict: Verdict,
    http_code: Option<u16>,
    fault: Option<FailureClass>,
) -> Option<FailureClass> {
    match (verdict, fault, http_code) {
        (Verdict::Delivered, ..) => None,
        (_, Some(class), _) => Some(class),
        (_, None, Some(400..=499)) => Some(FailureClass::Http4xx),
        (_, None, Some(500..=599)) => Some(FailureClass::Http5xx),
        _ => Some(FailureClass::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use ureq::Timeout;

    #[test]
    fn each_failure_has_one_class() {
        let io = |kind: ErrorKind| Error::Io(io::Error::from(kind));
        let refused = |class| {
            let why = "no".to_owned();
            Error::Other(Box::new(Refused { why, class }))
        };
        for (error, class) in [
            (Error::Timeout(Timeout::Connect), FailureClass::Timeout),
            (io(ErrorKind::TimedOut), FailureClass::Timeout),
            (io(ErrorKind::ConnectionRefused), FailureClass::Connect),
            (io(ErrorKind::UnexpectedEof), FailureClass::Connect),
            (Error::HostNotFound, FailureClass::Connect),
            (refused(FailureClass::Tls), FailureClass::Tls),
            (Error::RequireHttpsOnly(String::new()), FailureClass::Other),
        ] {
            assert_eq!(of_error(&error), class, "{error}");
        }
        for (code, class) in [
            (Some(302), FailureClass::Other),
            (Some(404), FailureClass::Http4xx),
            (Some(503), FailureClass::Http5xx),
            (None, FailureClass::Other),
        ] {
            assert_eq!(of_outcome(Verdict::Failed, code, None), Some(class));
        }
        assert_eq!(of_outcome(Verdict::Delivered, Some(200), None), None);
        let broken = of_outcome(Verdict::Failed, Some(200), Some(FailureClass::Timeout));
        assert_eq!(broken, Some(FailureClass::Timeout));
    }
}
