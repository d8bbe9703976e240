import outlast
