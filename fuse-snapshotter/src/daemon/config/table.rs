//! How keys are declared: [`tables!`] makes of one declaration the field of a structure, its name and default in the file,
//! its documentation, its check, and where its value goes.

use std::collections::BTreeMap;

use super::keys::Key;
use crate::snapshotter::Settings;

/// A table of the file.
pub(super) trait Table {
    /// Adds its keys, and those of the tables in it, in the order of `config default`.
    fn keys(into: &mut Vec<Key>);

    /// Puts in the defaults that 0 and empty texts stand for.
    fn resolve_defaults(&mut self) {}

    /// Puts the values of keys that say so into the settings.
    fn apply(&self, _settings: &mut Settings) {}
}

/// Tables with names of the user's.
impl<T: Table> Table for BTreeMap<String, T> {
    fn keys(into: &mut Vec<Key>) {
        T::keys(into);
    }
}

/// A list of tables.
impl<T: Table> Table for Vec<T> {
    fn keys(into: &mut Vec<Key>) {
        T::keys(into);
    }
}

/// Puts in the default if the value is 0 or empty.
pub(super) fn or<T: Default + PartialEq>(value: &mut T, default: T) {
    if *value == T::default() {
        *value = default;
    }
}

/// Declares tables and their keys:
///
/// ```text
/// tables! {
///     /// What the table is for.
///     Name("place.in.the.file") {
///         /// What the key means, which is what `config default` and `docs/configuration.md` say.
///         field as "NameInTheFile": type = default, kind, mark, mark(value) => |settings, value| …;
///         + table: Type;
///     }
/// }
/// ```
///
/// A key is named like its field unless `as` says otherwise. Marks are functions of [`Key`]: `own`, `idle(why)`,
/// `zero_is_default`, `example(text)`. What follows `=>` puts the value into [`Settings`]; keys without it are read
/// by `settings.rs` or `hosts.rs`. The tables inside of a table come after its keys, as TOML has it.
macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        $table:ident($place:expr) {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(as $name:literal)?: $type:ty = $default:expr, $kind:expr
                    $(, $mark:ident $(($value:expr))?)* $(=> $set:expr)?;
            )*
            $(+ $(#[$meta:meta])* $inner:ident: $inner_type:ty;)*
        }
    )*) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default)]
        pub(in crate::daemon::config) struct $table {
            $(
                $(#[doc = $doc])+
                $(#[serde(rename = $name)])?
                pub(in crate::daemon::config) $field: $type,
            )*
            $($(#[$meta])* pub(in crate::daemon::config) $inner: $inner_type,)*
        }

        impl Default for $table {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($inner: <$inner_type>::default(),)*
                }
            }
        }

        impl $table {
            $(
                #[expect(non_upper_case_globals, reason = "named like the field")]
                const $field: $crate::daemon::config::keys::Key = $crate::daemon::config::keys::Key::new(
                    $place,
                    $crate::daemon::config::table::key_name!($field $($name)?),
                    $kind,
                    concat!($($doc),+),
                )$(.$mark($($value)?))*;
            )*
        }

        impl $crate::daemon::config::table::Table for $table {
            fn keys(_into: &mut Vec<$crate::daemon::config::keys::Key>) {
                $(_into.push(Self::$field);)*
                $(<$inner_type as $crate::daemon::config::table::Table>::keys(_into);)*
            }

            fn resolve_defaults(&mut self) {
                $(
                    if Self::$field.zero_is_default {
                        $crate::daemon::config::table::or(&mut self.$field, $default);
                    }
                )*
                $($crate::daemon::config::table::Table::resolve_defaults(&mut self.$inner);)*
            }

            fn apply(&self, _settings: &mut $crate::snapshotter::Settings) {
                $($(
                    let set: fn(&mut $crate::snapshotter::Settings, $type) = $set;
                    set(_settings, self.$field.clone());
                )?)*
                $($crate::daemon::config::table::Table::apply(&self.$inner, _settings);)*
            }
        }
    )*};
}

/// The name of a key in the file.
macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

pub(super) use {key_name, tables};
