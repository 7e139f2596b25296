//! Classes of addresses. Only by these the kernel side filters connections that no rule can match. Both sides use the
//! same function, and user space derives the filter from the networks that are defined beside it.

/// A class of addresses. Every address is of exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reach {
    /// The host itself.
    Loopback = 0,
    /// What is on the same link, the instance metadata service too.
    LinkLocal = 1,
    /// Networks that are not routed on the internet.
    Private = 2,
    /// Everything else.
    Public = 3,
}

impl Reach {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Loopback, Self::LinkLocal, Self::Private, Self::Public];
    /// The bits of all of them.
    pub const EVERY: u32 = (1 << Self::ALL.len()) - 1;

    /// The class of an address as [`Socket`](crate::Socket) has it.
    #[inline(always)]
    #[must_use]
    pub const fn of(is_ipv6: bool, address: [u32; 4]) -> Self {
        let first = u32::from_be(address[0]);
        if is_ipv6 {
            if address[0] | address[1] | address[2] == 0 && u32::from_be(address[3]) == 1 {
                Self::Loopback
            } else if first >> 22 == 0xfe80 >> 6 {
                Self::LinkLocal
            } else if first >> 25 == 0xfc00 >> 9 {
                Self::Private
            } else {
                Self::Public
            }
        } else if first >> 24 == 127 {
            Self::Loopback
        } else if first >> 16 == 169 << 8 | 254 {
            Self::LinkLocal
        } else if first >> 24 == 10 || first >> 20 == (172 << 8 | 16) >> 4 || first >> 16 == 192 << 8 | 168 {
            Self::Private
        } else {
            Self::Public
        }
    }

    /// Its bit in a set of classes.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its name in `lapwing status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::Public => "public",
        }
    }

    /// The networks whose addresses are of this class; none for what is left over.
    #[must_use]
    pub const fn networks(self) -> &'static [&'static str] {
        match self {
            Self::Loopback => &["127.0.0.0/8", "::1/128"],
            Self::LinkLocal => &["169.254.0.0/16", "fe80::/10"],
            Self::Private => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
            Self::Public => &[],
        }
    }
}
