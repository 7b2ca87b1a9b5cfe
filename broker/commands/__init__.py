"""The commands besides serving, such as `selectmq passwd`: one module each, and `table` lists them."""
