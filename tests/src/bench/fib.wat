;; A core module that computes: `fib` is the naive recursion, `handler` has the signature of a function's handler as it
;; is lowered, and answers the result of `fib` in eight bytes.
(module
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32) (result i32)
        (local $start i32)
        (local.set $start (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
        (global.set $next (i32.add (local.get $start) (local.get $bytes)))
        (local.get $start))
    (func $fib (export "fib") (param $n i64) (result i64)
        (if (result i64) (i64.lt_u (local.get $n) (i64.const 2))
            (then (local.get $n))
            (else (i64.add
                (call $fib (i64.sub (local.get $n) (i64.const 1)))
                (call $fib (i64.sub (local.get $n) (i64.const 2)))))))
    (func (export "handler")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32) (result i32)
        (i64.store (i32.const 32) (call $fib (i64.const 27)))
        (global.set $next (i32.const 4096))
        (i32.store8 (i32.const 16) (i32.const 0)) ;; ok
        (i32.store (i32.const 20) (i32.const 32))
        (i32.store (i32.const 24) (i32.const 8))
        (i32.const 16)))
