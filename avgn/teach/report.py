def report_on(source, tokens, lessons):
    return {e.label:{'examples':{}} for e,_ in lessons.pairs}, tokens
