// SPDX-License-Identifier: GPL-2.0-only
//! One declaration for both languages.
//!
//! [`c_struct!`], [`c_constants!`] and [`c_functions!`] declare an item for Rust and, in tests,
//! render it in C. `adaptor/varia_abi.h` is that rendering; a test compares the two, so they
//! can't drift apart.

/// C spelling of a type.
#[cfg(test)]
pub trait CType {
    /// A declaration of `name` with this type.
    fn declare(name: &str) -> String;
}

#[cfg(test)]
macro_rules! c_integers {
    ($($rust:ty => $c:literal),*) => {
        $(impl CType for $rust {
            fn declare(name: &str) -> String {
                format!(concat!($c, " {}"), name)
            }
        })*
    };
}

#[cfg(test)]
c_integers!(u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", i32 => "int", i64 => "s64");

#[cfg(test)]
impl<T: CType, const N: usize> CType for [T; N] {
    fn declare(name: &str) -> String {
        T::declare(&format!("{name}[{N}]"))
    }
}

#[cfg(test)]
impl<T: CType> CType for *mut T {
    fn declare(name: &str) -> String {
        T::declare(&format!("*{name}"))
    }
}

#[cfg(test)]
impl<T: CType> CType for *const T {
    fn declare(name: &str) -> String {
        format!("const {}", T::declare(&format!("*{name}")))
    }
}

/// A C comment of the lines of a doc comment.
#[cfg(test)]
pub fn comment(indent: &str, lines: &[&str]) -> String {
    match lines {
        [] => String::new(),
        [line] => format!("{indent}/*{line} */\n"),
        _ => {
            let body: String = lines
                .iter()
                .map(|line| format!("{indent} *{line}\n"))
                .collect();
            format!("{indent}/*\n{body}{indent} */\n")
        }
    }
}

/// Declares `repr(C)` structs of integers; the compiler refuses one with padding.
macro_rules! c_structs {
    ($($(#[doc = $doc:literal])* $c:ident $rust:ident {
        $($(#[doc = $field_doc:literal])* $field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[doc = $doc])*
            #[repr(C)]
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub struct $rust {
                $($(#[doc = $field_doc])* pub $field: $type,)*
            }

            const _: () = assert!(
                core::mem::size_of::<$rust>() == 0 $(+ core::mem::size_of::<$type>())*,
                "padding would leak bytes of a stack across the border"
            );

            #[cfg(test)]
            impl $crate::abi::CType for $rust {
                fn declare(name: &str) -> String {
                    format!(concat!("struct ", stringify!($c), " {}"), name)
                }
            }
        )*

        /// The structs, in C.
        #[cfg(test)]
        pub fn structs() -> Vec<String> {
            use $crate::abi::{CType, comment};
            vec![$({
                let mut text = comment("", &[$($doc),*]);
                text += concat!("struct ", stringify!($c), " {\n");
                $(
                    text += &comment("\t", &[$($field_doc),*]);
                    text += &format!("\t{};\n", <$type as CType>::declare(stringify!($field)));
                )*
                let size = core::mem::size_of::<$rust>();
                text + &format!(
                    concat!("}};\nstatic_assert(sizeof(struct ", stringify!($c), ") == {});\n"),
                    size
                )
            }),*]
        }
    };
}

/// Declares constants that C knows as macros.
macro_rules! c_constants {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[doc = $doc])* pub const $name: $type = $value;)*

        /// The constants, in C.
        #[cfg(test)]
        pub fn constants() -> Vec<String> {
            vec![$(
                $crate::abi::comment("", &[$($doc),*])
                    + &format!("#define VARIA_{} {}\n", stringify!($name), $name)
            ),*]
        }
    };
}

/// Declares functions that C calls. Each is unsafe by the same contract, stated once here.
macro_rules! c_functions {
    ($($(#[doc = $doc:literal])*
        fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {
        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            /// A pointer to a state is null or names one that [`crate::probe::varia_probe`] has
            /// built and that outlives the call. Any other pointer is null or names as many
            /// values as its struct or the accompanying length says, which are the caller's own:
            /// no other code reads or writes them during the call.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? $body
        )*

        /// The prototypes, in C.
        #[cfg(test)]
        pub fn prototypes() -> Vec<String> {
            vec![$({
                let arguments: &[String] = &[
                    $(<$type as $crate::abi::CType>::declare(stringify!($argument))),*
                ];
                let result: &[String] = &[$(<$result as $crate::abi::CType>::declare(""))?];
                let result = result.first().map_or("void", |text| text.trim_end());
                $crate::abi::comment("", &[$($doc),*])
                    + &format!("{} {}(", result, stringify!($name))
                    + &arguments.join(", ")
                    + ");\n"
            }),*]
        }
    };
}

pub(crate) use {c_constants, c_functions, c_structs};
