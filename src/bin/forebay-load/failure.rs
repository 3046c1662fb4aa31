//! Why an operation failed, in few enough kinds to be counted.

use std::borrow::Cow;
use std::fmt;
use std::io;

use rustls::AlertDescription;

/// What failures are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Nobody listens there.
    ConnectionRefused,
    /// The server reset the connection.
    ConnectionReset,
    /// The server ended the connection before the operation was complete.
    ClosedEarly,
    /// It took longer than the timeout.
    TimedOut,
    /// The connection was served, but the server did not end it after our close_notify.
    NotClosed,
    /// Was due, but no connection was free for it before the run ended.
    NotStarted,
    /// Every local port towards the server is in use.
    NoLocalPort,
    /// The process has no descriptor left.
    NoDescriptor,
    /// The server sent a fatal alert.
    Alert(u8),
    /// The server's certificate was not accepted.
    Certificate,
    /// The TLS messages of the server are not understood.
    Tls,
    /// The server answered with this HTTP status.
    Status(u16),
    /// The HTTP answer is not understood.
    Http,
    /// Another error of the kernel, by its number.
    System(i32),
}

impl Cause {
    /// The name under which it is reported.
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            Self::ConnectionRefused => "connection refused".into(),
            Self::ConnectionReset => "connection reset".into(),
            Self::ClosedEarly => "closed early".into(),
            Self::TimedOut => "timed out".into(),
            Self::NotClosed => "not closed by the server".into(),
            Self::NotStarted => "not started".into(),
            Self::NoLocalPort => "no local port".into(),
            Self::NoDescriptor => "no descriptor".into(),
            Self::Alert(code) => format!("alert {:?}", AlertDescription::from(code)).into(),
            Self::Certificate => "certificate".into(),
            Self::Tls => "TLS".into(),
            Self::Status(status) => format!("status {status}").into(),
            Self::Http => "HTTP".into(),
            Self::System(code) => io::Error::from_raw_os_error(code).to_string().into(),
        }
    }

    /// What to do about it, where that is not obvious.
    pub(crate) fn advice(self) -> Option<&'static str> {
        match self {
            Self::NoLocalPort => Some(
                "every local port towards the server is taken, most by connections that ended \
                 less than a minute ago: use --close reset, further addresses by --source, or a \
                 wider net.ipv4.ip_local_port_range",
            ),
            Self::NoDescriptor => Some("raise the limit: ulimit -n"),
            Self::Certificate => Some("without --verify any certificate is taken"),
            Self::NotStarted => {
                Some("the server did not keep up with --rate, or there are too few --connections")
            }
            _ => None,
        }
    }
}

/// A failure: its kind, and the words of whoever noticed it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    detail: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self { cause, detail: Cow::Borrowed("") }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::ConnectionRefused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Cause::ConnectionReset,
            io::ErrorKind::TimedOut => Cause::TimedOut,
            io::ErrorKind::AddrNotAvailable => Cause::NoLocalPort,
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => Cause::NoDescriptor,
                Some(code) => Cause::System(code),
                None => Cause::System(0),
            },
        };
        Self::from(cause)
    }
}

impl From<rustls::Error> for Failure {
    fn from(error: rustls::Error) -> Self {
        let cause = match &error {
            rustls::Error::AlertReceived(alert) => Cause::Alert(u8::from(*alert)),
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Cause::Certificate
            }
            _ => Cause::Tls,
        };
        Self::new(cause, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.cause.name())?;
        if !self.detail.is_empty() {
            write!(formatter, ": {}", self.detail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_become_kinds_that_can_be_counted() {
        for (code, cause) in [
            (libc::ECONNREFUSED, Cause::ConnectionRefused),
            (libc::EPIPE, Cause::ConnectionReset),
            (libc::EADDRNOTAVAIL, Cause::NoLocalPort),
            (libc::EMFILE, Cause::NoDescriptor),
            (libc::EHOSTUNREACH, Cause::System(libc::EHOSTUNREACH)),
        ] {
            assert_eq!(Failure::from(io::Error::from_raw_os_error(code)).cause, cause);
        }
    }

    #[test]
    fn alerts_and_certificates_are_told_apart_from_other_tls_errors() {
        let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
        let failure = Failure::from(alert);
        assert_eq!(failure.cause.name(), "alert UnrecognisedName");
        let certificate = rustls::Error::from(rustls::CertificateError::UnknownIssuer);
        assert_eq!(Failure::from(certificate).cause, Cause::Certificate);
        assert_eq!(Failure::from(rustls::Error::DecryptError).cause, Cause::Tls);
    }
}
