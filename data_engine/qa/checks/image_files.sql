-- title: Files of images that are no longer there
-- Of at most 200 files, spread over the data set. What was said of their images is still here, but nobody can look at
-- them, and no specialist can be run on them.
SELECT uri FROM image_files WHERE NOT there
