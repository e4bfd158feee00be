"""A stand-in for the services that run jobs: SageMaker AI, AWS Batch and EMR Serverless, on this machine, without images.

A request is held against the services' own models as botocore ships them, and refused as the service would refuse it. A job then runs in
a confined process, on this machine's interpreter with the packages of the version's environment archive in place of the image that it
names, under the states of the service, and is described in the service's shape. What is not here: images, instances, spot capacity,
more than one host, Spark.
"""
