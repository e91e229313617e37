//! What one request has tried to be let in.
//!
//! At most four exchanges: with the header at hand, with what its refusal led to, bare, and with what answers the
//! challenge to that.

use super::grant::Grant;

/// The state of one request, across its tries.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// The header that was refused last.
    refused: Option<Grant>,
    /// The next try goes out bare, although there is a header.
    bare: bool,
    /// There has been a bare try.
    was_bare: bool,
    /// A challenge was answered since the last bare try.
    answered: bool,
}

impl Attempt {
    /// Whether the try under way carries nothing on purpose.
    pub(super) fn is_bare(&self) -> bool {
        self.bare
    }

    /// A try that carried `used` was refused.
    pub(super) fn note_refused(&mut self, used: Option<&Grant>) {
        match used {
            Some(used) => self.refused = Some(used.clone()),
            None => self.was_bare = true,
        }
        self.bare = false;
    }

    /// Whether the server has refused this header. A login stays the same however often it is asked for; a token
    /// server may have good reason to give a token again.
    pub(super) fn has_refused(&self, grant: &Grant) -> bool {
        self.refused.as_ref().is_some_and(|refused| {
            refused.serial == grant.serial || (grant.basic && refused.header == grant.header)
        })
    }

    /// Makes the next try a bare one, if none was. Returns whether there is a next try.
    pub(super) fn goes_bare(&mut self) -> bool {
        if self.was_bare {
            return false;
        }
        (self.bare, self.was_bare, self.answered) = (true, true, false);
        true
    }

    /// Takes the one answer to a challenge that is left. Returns whether there was one.
    pub(super) fn answers(&mut self) -> bool {
        !std::mem::replace(&mut self.answered, true)
    }
}
