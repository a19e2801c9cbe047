"""Paths that more than one module names."""

#: The documented path, and the forms of it that clients in the field use.
IMAGES_PATH = "/v1/images/generations"
OTHER_IMAGES_PATHS = tuple(
    path
    for start in ("/v1", "")
    for end in ("", "/", "/with-url", "/with-url/")
    if (path := f"{start}/images/generations{end}") != IMAGES_PATH
)
