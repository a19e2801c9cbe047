"""Paths that several modules use."""

#: The documented path of the images endpoint. Existing clients also use the paths below it.
IMAGES_PATH = "/v1/images/generations"
OTHER_IMAGES_PATHS = tuple(
    path
    for start in ("/v1", "")
    for end in ("", "/", "/with-url", "/with-url/")
    if (path := f"{start}/images/generations{end}") != IMAGES_PATH
)
