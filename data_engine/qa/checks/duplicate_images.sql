-- title: Images that are there twice
SELECT image_id, count(*) AS rows FROM images GROUP BY image_id HAVING count(*) > 1
