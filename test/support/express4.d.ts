/** Express 4 under its development alias; its types differ from those of Express 5 in nothing that we use. */
declare module 'express4' {
  import express from 'express'

  export default express
}
