//! Cuts a filter into tokens, as containerd does.

/// What a piece of a filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Field,
    Value,
    Quoted,
    Operator,
    Separator,
    /// A character that begins nothing.
    Other,
    End,
}

/// A token and where it stands in the input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) token: Token,
    pub(super) at: usize,
    pub(super) text: &'a str,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Illegal {
    pub(super) at: usize,
    pub(super) message: &'static str,
}

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    input: &'a str,
    /// Always at a character's beginning.
    at: usize,
    /// Whether a value is expected: between an operator and the next separator, nearly everything is one.
    value: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, at: 0, value: false }
    }

    /// Where the next character stands.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next character, which stays where it is.
    pub(super) fn peek(&self) -> Option<char> {
        self.input.get(self.at..)?.chars().next()
    }

    /// The next token. White space before it is skipped.
    pub(super) fn scan(&mut self) -> Result<Piece<'a>, Illegal> {
        self.skip_while(char::is_whitespace);
        let at = self.at;
        let Some(first) = self.next()? else {
            return Ok(Piece { token: Token::End, at, text: "" });
        };
        let token = match first {
            '"' | '/' | '|' => {
                self.skip_quoted(at, first)?;
                Token::Quoted
            }
            ',' | '.' => {
                self.value = false;
                Token::Separator
            }
            '=' | '!' | '~' => {
                self.skip_while(|c| matches!(c, '=' | '!' | '~'));
                self.value = true;
                Token::Operator
            }
            _ if self.value => {
                self.skip_while(is_value);
                self.value = false;
                Token::Value
            }
            _ if is_field(first) => {
                self.skip_while(is_field);
                Token::Field
            }
            _ => Token::Other,
        };
        Ok(Piece { token, at, text: self.input.get(at..self.at).unwrap_or_default() })
    }

    fn next(&mut self) -> Result<Option<char>, Illegal> {
        let at = self.at;
        let Some(next) = self.peek() else { return Ok(None) };
        self.at += next.len_utf8();
        match next {
            '\0' => Err(Illegal { at, message: "unexpected null" }),
            // Go cannot tell it from what it stands for.
            char::REPLACEMENT_CHARACTER => Err(Illegal { at, message: "rune error" }),
            next => Ok(Some(next)),
        }
    }

    fn skip_while(&mut self, accepts: impl Fn(char) -> bool) {
        while let Some(next) = self.peek()
            && accepts(next)
        {
            self.at += next.len_utf8();
        }
    }

    /// Skips what follows the quote that stands at `start`, and the closing quote. Escapes are only looked at as far
    /// as is needed to find it; [`super::quote::unquote`] reads them.
    fn skip_quoted(&mut self, start: usize, quote: char) -> Result<(), Illegal> {
        let illegal = |message| Illegal { at: start, message };
        let not_terminated = "quoted literal not terminated";
        loop {
            match self.next().map_err(|error| illegal(error.message))? {
                None | Some('\n') => return Err(illegal(not_terminated)),
                Some('\\') => self.skip_escape(quote).map_err(illegal)?,
                Some(next) if next == quote => return Ok(()),
                Some(_) => {}
            }
        }
    }

    fn skip_escape(&mut self, quote: char) -> Result<(), &'static str> {
        let illegal = "illegal escape sequence";
        let (digits, radix) = match self.next().map_err(|error| error.message)? {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(next) if next == quote => return Ok(()),
            Some('0'..='7') => (2, 8),
            Some('x') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            _ => return Err(illegal),
        };
        for _ in 0..digits {
            match self.peek() {
                Some(digit) if digit.is_digit(radix) => self.at += digit.len_utf8(),
                _ => return Err("illegal numeric escape sequence"),
            }
        }
        Ok(())
    }
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_value(c: char) -> bool {
    c != ',' && c != char::REPLACEMENT_CHARACTER && !c.is_whitespace() && !c.is_control()
}
