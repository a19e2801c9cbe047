"""The use cases: accounts, keys, jobs, images and webhooks. They are independent of HTTP and of tensors."""
