//! Linux error numbers, as VFIO and vfio-user return them.
//!
//! Source: Linux 7.2 `include/uapi/asm-generic/errno-base.h` and `errno.h`; the values are the
//! same on every architecture that Varia supports (x86-64, arm64).

use core::fmt;

/// A positive Linux error number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`: ", $text, ".")]
            pub const $name: Self = Self($value);)*

            /// The symbolic name, for example `EINVAL`; `E?` for a number that Varia never uses.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)*
                    _ => "E?",
                }
            }

            const fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unknown error",
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such entry";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument too long";
    EBADF = 9, "bad descriptor";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "busy";
    EEXIST = 17, "exists already";
    ENODEV = 19, "no such device";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in the system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "not supported by this device";
    ENOSPC = 28, "no space left";
    EPIPE = 32, "broken pipe";
    ERANGE = 34, "out of range";
    ENOSYS = 38, "not implemented";
    ENOMSG = 42, "no message of the desired type";
    ETIME = 62, "timer expired";
    EPROTO = 71, "protocol error";
    EOVERFLOW = 75, "value too large";
    EMSGSIZE = 90, "message too long";
    EOPNOTSUPP = 95, "operation not supported";
    ECONNRESET = 104, "connection reset";
    ETIMEDOUT = 110, "timed out";
}

impl Errno {
    /// The largest value that a system call can return as an error.
    pub const MAX: i32 = 4095;

    /// An error number from outside; `None` unless 1 to [`Errno::MAX`].
    pub const fn new(value: i32) -> Option<Self> {
        if value >= 1 && value <= Self::MAX {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The positive number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.text())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}
