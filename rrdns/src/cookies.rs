//! DNS cookies (RFC 7873) with server cookies that others could check as well (RFC 9018).

use domain::base::Serial;
use domain::base::opt::Cookie;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use std::hash::Hasher as _;
use std::net::IpAddr;

/// Older server cookies are not accepted, seconds (RFC 9018 section 4.3).
const AGE_MAX_S: u32 = 3600;

/// Nor those from further in the future, seconds (RFC 9018 section 4.3).
const FUTURE_MAX_S: u32 = 300;

/// A secret is used for so long; RFC 7873 section 7.1 allows up to 36 days.
const SECRET_LIFE_S: u32 = 86_400;

/// Makes and checks server cookies. Secrets follow from a seed and the day, so all who share the seed agree.
#[derive(Clone)]
pub(crate) struct Cookies {
    seed: [u8; 16],
    day: u32,
    /// Of today and of the day before.
    secrets: [[u8; 16]; 2],
}

impl Cookies {
    pub(crate) fn new(seed: [u8; 16]) -> Self {
        Self { seed, day: 0, secrets: secrets(&seed, 0) }
    }

    /// Whether the server cookie in it was made here for this address not long ago.
    pub(crate) fn is_valid(&mut self, cookie: &Cookie, client: IpAddr, unix_s: u32) -> bool {
        if cookie.server().is_none() {
            return false;
        }
        self.renew(unix_s);
        // Serial arithmetic, as the timestamp wraps in 2106.
        let is_recent = |made: Serial| {
            let age_s = unix_s.wrapping_sub(made.into_int());
            age_s <= AGE_MAX_S || age_s.wrapping_neg() <= FUTURE_MAX_S
        };
        self.secrets.iter().any(|secret| cookie.check_server_hash(client, secret, is_recent))
    }

    /// The cookie that a reply carries: the client's, and a fresh one of the server's.
    pub(crate) fn reply(&mut self, cookie: &Cookie, client: IpAddr, unix_s: u32) -> Cookie {
        self.renew(unix_s);
        cookie.create_response(Serial::from(unix_s), client, &self.secrets[0])
    }

    fn renew(&mut self, unix_s: u32) {
        let day = unix_s / SECRET_LIFE_S;
        if day != self.day {
            self.day = day;
            self.secrets = secrets(&self.seed, day);
        }
    }
}

fn secrets(seed: &[u8; 16], day: u32) -> [[u8; 16]; 2] {
    [day, day.wrapping_sub(1)].map(|day| {
        let mut hasher = SipHasher24::new_with_key(seed);
        hasher.write_u32(day);
        hasher.finish128().as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::opt::cookie::ClientCookie;

    const NOON: u32 = 20_000 * SECRET_LIFE_S + SECRET_LIFE_S / 2;

    fn client() -> IpAddr {
        "198.51.100.100".parse().unwrap()
    }

    fn initial() -> Cookie {
        Cookie::new(ClientCookie::from_octets([1; 8]), None)
    }

    #[test]
    fn a_cookie_is_good_for_its_client_for_an_hour() {
        let mut cookies = Cookies::new([3; 16]);
        let cookie = cookies.reply(&initial(), client(), NOON);

        assert!(cookies.is_valid(&cookie, client(), NOON + AGE_MAX_S));
        assert!(cookies.is_valid(&cookie, client(), NOON - FUTURE_MAX_S));
        assert!(!cookies.is_valid(&cookie, client(), NOON + AGE_MAX_S + 1));
        assert!(!cookies.is_valid(&cookie, client(), NOON - FUTURE_MAX_S - 1));
        assert!(!cookies.is_valid(&cookie, "198.51.100.101".parse().unwrap(), NOON));
        assert!(!cookies.is_valid(&initial(), client(), NOON));
    }

    #[test]
    fn secrets_change_from_day_to_day() {
        let mut cookies = Cookies::new([3; 16]);
        let mut on = |unix_s| {
            cookies.renew(unix_s);
            cookies.secrets
        };

        let [first, second, third] = [0, 1, 2].map(|days| on(NOON + days * SECRET_LIFE_S));

        assert_eq!((first[0], second[0]), (second[1], third[1]));
        assert!(first[0] != second[0] && second[0] != third[0] && first[0] != third[0]);
    }

    #[test]
    fn a_cookie_outlives_the_change_of_secrets_at_midnight_and_no_other_seed_accepts_it() {
        let midnight = 20_001 * SECRET_LIFE_S;
        let mut cookies = Cookies::new([3; 16]);
        let cookie = cookies.reply(&initial(), client(), midnight - 10);

        assert!(cookies.is_valid(&cookie, client(), midnight + 10));
        assert!(Cookies::new([3; 16]).is_valid(&cookie, client(), midnight + 10));
        assert!(!Cookies::new([4; 16]).is_valid(&cookie, client(), midnight + 10));
    }
}
