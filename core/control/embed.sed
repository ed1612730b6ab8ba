# Text file -> lines of a C string.
s/["\\]/\\&/g
s/.*/"&\\n"/
