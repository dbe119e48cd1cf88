"""One adapter, server and client per library; each module runs under the interpreter that has its library."""
