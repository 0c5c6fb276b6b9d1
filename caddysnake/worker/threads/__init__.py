"""Workers that are threads of one process.

``host``       the process
``ownership``  which thread belongs to which app
``modules``    whose modules are whose
``conflicts``  what two apps would fight for
``output``     whose output is whose
"""
